package driver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// conn is one kept-alive HTTP/1.1 connection to an order service. It does the little that the driver needs by hand: on
// a machine that the driver shares with what it measures, net/http's client would take a share of the result.
type conn struct {
	addr string
	nc   net.Conn
	br   *bufio.Reader
	out  []byte
}

func newConn(addr string) *conn { return &conn{addr: addr} }

func (c *conn) close() {
	if c.nc != nil {
		_ = c.nc.Close() // nothing is lost with it
		c.nc = nil
	}
}

const requestTimeout = 30 * time.Second

// statusError is an answer other than 202.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("POST /orders: %d: %s", e.status, e.body) }

// place posts an order and returns its id. After an error that is not a *statusError the outcome is unknown, and the
// next call connects anew.
func (c *conn) place(body []byte) (id uuid.UUID, err error) {
	defer func() {
		if refused := (*statusError)(nil); err != nil && !errors.As(err, &refused) {
			c.close()
		}
	}()
	if c.nc == nil {
		if c.nc, err = net.DialTimeout("tcp", c.addr, 5*time.Second); err != nil { //nolint:noctx // has a time-out
			return uuid.Nil, err
		}
		c.br = bufio.NewReaderSize(c.nc, 4096)
	}
	if err := c.nc.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return uuid.Nil, err
	}
	c.out = append(c.out[:0], "POST /orders HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.addr...)
	c.out = append(c.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if _, err := c.nc.Write(c.out); err != nil {
		return uuid.Nil, err
	}
	return c.readAnswer()
}

var (
	contentLength    = []byte("content-length")
	transferEncoding = []byte("transfer-encoding")
	connection       = []byte("connection")
	location         = []byte("location")
	ordersPath       = []byte("/orders/")
)

// readAnswer reads a response whose length is given, as net/http gives it for every answer that fits its buffer.
func (c *conn) readAnswer() (id uuid.UUID, err error) {
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return uuid.Nil, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return uuid.Nil, fmt.Errorf("not a status line: %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return uuid.Nil, fmt.Errorf("not a status line: %q", line)
	}
	length, last := -1, false
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return uuid.Nil, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, contentLength):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return uuid.Nil, err
			}
		case bytes.EqualFold(name, location):
			if id, err = uuid.ParseBytes(bytes.TrimPrefix(value, ordersPath)); err != nil {
				return uuid.Nil, fmt.Errorf("the Location is %q: %w", value, err)
			}
		case bytes.EqualFold(name, transferEncoding):
			return uuid.Nil, fmt.Errorf("the answer's length is not given: %s", line)
		case bytes.EqualFold(name, connection):
			last = bytes.EqualFold(value, []byte("close"))
		}
	}
	if length < 0 {
		return uuid.Nil, errors.New("the answer's length is not given")
	}
	if status != 202 {
		body := make([]byte, length)
		if _, err := io.ReadFull(c.br, body); err != nil {
			return uuid.Nil, err
		}
		err = &statusError{status, string(body[:min(length, 300)])}
	} else if _, err = c.br.Discard(length); err == nil && id == uuid.Nil {
		err = errors.New("an order was accepted without a Location")
	}
	if last {
		c.close()
	}
	return id, err
}
