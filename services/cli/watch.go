package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/cli"
	"github.com/converge-dev/converge/services/order"
)

const (
	watchPause    = time.Second      // before a stream that ended is asked for again
	watchPatience = time.Minute      // without a stream, before it is given up
	watchSilence  = 45 * time.Second // without a line, before a stream counts as dead: there is a beat every 15 s
)

// watchOrder prints what happens to an order until it has settled.
func watchOrder(ctx context.Context, c *cli.Call) error {
	url := c.Flags.String("url", "", "URL of the order service (default: where it listens unless told otherwise)")
	if err := c.ParseAfter(1); err != nil {
		return err
	}
	id, err := uuid.Parse(c.Flags.Arg(0))
	if err != nil {
		return fmt.Errorf("%q is no order's id, which is a UUID", c.Flags.Arg(0))
	}
	base, err := c.URL("order", *url)
	if err != nil {
		return err
	}
	w := watch{url: base + "/orders/" + id.String() + "/events", out: c.Out}
	for {
		settled, err := w.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case settled:
			return nil
		case w.heard.IsZero() || errors.Is(err, errRefused) || time.Since(w.heard) > watchPatience:
			return fmt.Errorf("watch order %s: %w", id, cmp.Or(err, io.ErrUnexpectedEOF))
		}
		select { // the service stops, starts, or is out of reach
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(watchPause):
		}
	}
}

// errRefused is an answer that trying again does not change.
var errRefused = errors.New("refused")

// watch is how far the stream of an order has been followed.
type watch struct {
	url    string
	out    io.Writer
	last   string       // id of the last event
	status order.Status // as of it
	heard  time.Time    // when something came last; zero: never
}

// follow reads the stream from where it is to its end, and tells whether the order has settled. The error is why it
// ended, if that is not how the service ends it.
func (w *watch) follow(ctx context.Context) (settled bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(watchSilence, func() { cancel(fmt.Errorf("nothing came for %s", watchSilence)) })
	defer silence.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, http.NoBody)
	if err != nil {
		return false, err
	}
	if w.last != "" {
		req.Header.Set("Last-Event-ID", w.last)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, cmp.Or(context.Cause(ctx), err)
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	switch {
	case res.StatusCode == http.StatusNoContent:
		return true, nil
	case res.StatusCode != http.StatusOK:
		return false, refusal(w.url, res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	var id, data string
	for lines.Scan() {
		w.heard = time.Now()
		silence.Reset(watchSilence)
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "data":
			data = value
		case "": // a comment, or the end of an event
			if data == "" {
				continue
			}
			if err := w.print(data); err != nil {
				return false, err
			}
			w.last, data = id, ""
		}
	}
	if err := lines.Err(); err != nil {
		return false, cmp.Or(context.Cause(ctx), err)
	}
	return w.status == "CONFIRMED" || w.status == "CANCELLED", nil
}

// print prints a line of the order's history.
func (w *watch) print(data string) error {
	var line order.Entry
	if err := json.Unmarshal([]byte(data), &line); err != nil {
		return fmt.Errorf("%w: %s sends %q: %w", errRefused, w.url, data, err)
	}
	w.status = line.Status
	text := fmt.Sprintf("%s  %-10s  %s  %s", line.At.UTC().Format("2006-01-02T15:04:05.000Z"), line.Status, line.Event, line.Detail)
	_, err := fmt.Fprintln(w.out, strings.TrimRight(text, " "))
	return err
}

// refusal is the error of an answer that is no stream.
func refusal(url string, res *http.Response) error {
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	err = cli.Refusal(url, res.Status, answer)
	if res.StatusCode < http.StatusInternalServerError {
		err = fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}
