package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/pkg/readside"
)

// readSides are the services that can be rebuilt from the topics.
var readSides = []string{"search", "analytics"}

// rebuild has a read side build itself anew, and waits until it serves what it has built.
func rebuild(ctx context.Context, c *call) error {
	url := c.flags.String("url", "", "URL of the service (default: where it listens unless told otherwise)")
	partial := c.flags.Bool("partial", false, "rebuild although the topics no longer hold all there was")
	if err := c.parseAfter(1); err != nil {
		return err
	}
	name := c.flags.Arg(0)
	if !slices.Contains(readSides, name) {
		return fmt.Errorf("%q cannot be rebuilt; %s can", name, strings.Join(readSides, " and "))
	}
	base, err := addressOf(name, *url)
	if err != nil {
		return err
	}
	path := "/rebuilds"
	if *partial {
		path += "?partial=true"
	}
	var g readside.Generation
	if err := ask(ctx, http.MethodPost, base+path, nil, http.StatusAccepted, &g); err != nil {
		return fmt.Errorf("rebuild %s: %w", name, err)
	}
	fmt.Fprintf(c.out, "%s: building generation %d\n", name, g.ID)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for g.State == "BUILDING" {
		select {
		case <-ctx.Done():
			fmt.Fprintf(c.out, "%s goes on with it: %s/rebuilds/%d\n", name, base, g.ID)
			return ctx.Err()
		case <-tick.C:
		}
		if err := ask(ctx, http.MethodGet, fmt.Sprintf("%s/rebuilds/%d", base, g.ID), nil, http.StatusOK, &g); err != nil {
			return fmt.Errorf("rebuild %s: %w", name, err)
		}
	}
	if g.State == "FAILED" {
		return fmt.Errorf("rebuild %s: %s; the generation before it goes on serving", name, g.Error)
	}
	fmt.Fprintf(c.out, "%s: generation %d serves, from %d records", name, g.ID, g.Records)
	if g.LeftOut > 0 {
		fmt.Fprintf(c.out, ", %d of which no code could handle", g.LeftOut)
	}
	fmt.Fprintln(c.out)
	return nil
}

// ask sends a request, with a JSON body or none, and reads the answer.
func ask(ctx context.Context, method, url string, body any, want int, into any) error {
	var payload io.Reader
	if body != nil {
		p, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(p)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return refused(url, res.Status, answer)
	}
	return json.Unmarshal(answer, into)
}

// refused is the error of an answer that is not the one that was hoped for, in the words of its problem if it is one.
func refused(url, status string, answer []byte) error {
	var problem struct{ Detail string }
	if json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
		return errors.New(problem.Detail)
	}
	return fmt.Errorf("%s answers %s: %s", url, status, answer)
}
