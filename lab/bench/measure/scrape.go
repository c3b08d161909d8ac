package measure

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/converge-dev/converge/lab/rig"
)

// series are the samples of a /metrics page, or the sums of several: by name and labels, as they are written there.
type series map[string]float64

// scrape adds up the metrics of all instances of a service. It costs them a few milliseconds, so it is done outside of
// what is measured.
func scrape(ctx context.Context, all []*rig.Process, service string) (series, error) {
	sum := series{}
	for _, p := range all {
		if p.Service != service {
			continue
		}
		if err := scrapeOne(ctx, p.Addr, sum); err != nil {
			return nil, fmt.Errorf("scrape %s: %w", service, err)
		}
	}
	return sum, nil
}

func scrapeOne(ctx context.Context, addr string, sum series) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", req.URL, res.Status)
	}
	return sum.read(res.Body)
}

// read adds the samples of Prometheus' text format.
func (s series) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if end < 0 || err != nil {
			return fmt.Errorf("not a sample: %q", line)
		}
		s[line[:end]] += value
	}
	return lines.Err()
}

// since returns what was added to the counters after an earlier look.
func (s series) since(before series) series {
	out := make(series, len(s))
	for name, v := range s {
		out[name] = v - before[name]
	}
	return out
}

// label returns the value of a label in a sample's name, such as group of x{group="order"}.
func labelOf(name, label string) string {
	_, rest, ok := strings.Cut(name, label+`="`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// Batch says how well a consumer or a relay shared its round-trips.
type Batch struct {
	Who          string  `json:"who"` // consumer group, or the service whose outbox it is
	Transactions float64 `json:"transactions"`
	Average      float64 `json:"average"`             // messages in one transaction, or events published at once
	HandlerMS    float64 `json:"handlerMs,omitempty"` // average time of the handlers in one transaction
	Duplicates   float64 `json:"duplicates,omitempty"`
	Retries      float64 `json:"retries,omitempty"`
}

const (
	batchCount = "converge_consumer_batch_size_count"
	batchSum   = "converge_consumer_batch_size_sum"
	handlerSum = "converge_consumer_handler_seconds_sum"
	relayCount = "converge_outbox_batch_size_count"
	relaySum   = "converge_outbox_batch_size_sum"
	duplicates = "converge_consumer_duplicates_total"
	retries    = "converge_consumer_retries_total"
)

// batches reads what the consumers and the relay of a service did.
func (s series) batches(service string) []Batch {
	groups := map[string]*Batch{}
	var order []string
	of := func(name string) *Batch {
		g := labelOf(name, "group")
		if groups[g] == nil {
			groups[g] = &Batch{Who: g}
			order = append(order, g)
		}
		return groups[g]
	}
	for name, v := range s {
		metric, _, _ := strings.Cut(name, "{")
		switch metric {
		case batchCount:
			of(name).Transactions += v
		case batchSum:
			of(name).Average += v // the sum, until all is added up
		case handlerSum:
			of(name).HandlerMS += v * 1000
		case duplicates:
			of(name).Duplicates += v
		case retries:
			of(name).Retries += v
		}
	}
	relay := Batch{Who: "relay of " + service, Transactions: s[relayCount], Average: s[relaySum]}
	var out []Batch
	slices.Sort(order)
	for _, g := range append(order, "") {
		b := &relay
		if g != "" {
			b = groups[g]
		}
		if b.Transactions > 0 {
			b.Average /= b.Transactions
			b.HandlerMS /= b.Transactions
			out = append(out, *b)
		}
	}
	return out
}
