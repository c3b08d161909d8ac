package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/workload"
)

// customerPatience is how long a client waits for an answer.
const customerPatience = 10 * time.Second

// customers place orders at their times, however many are still waiting, as people do. Each asks once. They use
// net/http as clients do, which notices a connection that a dead server left.
type customers struct {
	url    string
	http   *http.Client
	orders workload.Orders

	mu     sync.Mutex
	visits []visit
}

// visit is one order as its client saw it.
type visit struct {
	due, answered time.Time // answered is zero where no answer came
	order         uuid.UUID // nil where it was not accepted
	failure       string    // why it was not
}

func newCustomers(addr string, seed, stream uint64) *customers {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy, transport.MaxIdleConns, transport.MaxIdleConnsPerHost = nil, 0, 1000
	return &customers{
		url: "http://" + addr + "/orders", orders: workload.NewOrders(seed, stream),
		http: &http.Client{Transport: transport, Timeout: customerPatience},
	}
}

func (c *customers) close() { c.http.CloseIdleConnections() }

// come places orders by the schedule, and returns when the last one has its answer or has given up.
func (c *customers) come(ctx context.Context, schedule []time.Duration, length time.Duration) driver.Window {
	runtime.LockOSThread() // sleepUntil blocks it
	defer runtime.UnlockOSThread()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	from := time.Now()
	for _, at := range schedule {
		due := from.Add(at)
		driver.SleepUntil(due)
		if ctx.Err() != nil {
			break
		}
		body := c.orders.Next().AppendTo(nil)
		waiting.Go(func() {
			v := visit{due: due}
			v.order, v.failure, v.answered = c.place(ctx, body)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.visits = append(c.visits, v)
		})
	}
	return driver.Window{From: from, To: from.Add(length)}
}

func (c *customers) place(ctx context.Context, body []byte) (order uuid.UUID, failure string, answered time.Time) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return uuid.Nil, err.Error(), time.Time{}
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return uuid.Nil, noAnswer(err), time.Time{}
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return uuid.Nil, noAnswer(err), time.Time{}
	}
	if res.StatusCode >= 300 {
		var problem struct{ Title, Detail string }
		_ = json.Unmarshal(answer, &problem) // what is no problem+json has its status, which is enough
		return uuid.Nil, fmt.Sprintf("%d %s", res.StatusCode, problem.Detail), time.Now()
	}
	order, err = uuid.Parse(strings.TrimPrefix(res.Header.Get("Location"), "/orders/"))
	if err != nil {
		return uuid.Nil, fmt.Sprintf("%s without an order", res.Status), time.Now()
	}
	return order, "", time.Now()
}

// noAnswer names what happened in place of an answer, without what differs from request to request.
func noAnswer(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer in %.0f s", customerPatience.Seconds())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection lost"
	}
	return err.Error()
}

// accepted are the orders that clients were given.
func (c *customers) accepted() map[uuid.UUID]struct{} {
	out := map[uuid.UUID]struct{}{}
	for _, v := range c.visits {
		if v.order != uuid.Nil {
			out[v.order] = struct{}{}
		}
	}
	return out
}
