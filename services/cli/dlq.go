package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/system"
)

// deadLetterTopics are those of all consumer groups, or of one.
func deadLetterTopics(group string) ([]string, error) {
	specs, err := saga.Topics(1, system.Choreography()...)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, s := range specs {
		if strings.HasSuffix(s.Name, saga.DeadLetterTopic("")) {
			all = append(all, s.Name)
		}
	}
	if group == "" {
		return all, nil
	}
	topic := saga.DeadLetterTopic(group)
	if !slices.Contains(all, topic) {
		return nil, fmt.Errorf("no consumer group %q; the dead letter topics are %s", group, strings.Join(all, ", "))
	}
	return []string{topic}, nil
}

// scan calls fn with each record of the topics, and the reason why it is no dead letter if somebody else put it there.
func scan(ctx context.Context, client *broker.Client, topics []string, fn func(saga.DeadLetter, error) error) error {
	for _, topic := range topics {
		err := client.Scan(ctx, topic, func(r broker.Record) error { return fn(saga.ParseDeadLetter(r)) })
		if err != nil {
			return err
		}
	}
	return nil
}

func place(r broker.Record) string { return fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset) }

func dlqList(ctx context.Context, c *call) error {
	group := c.flags.String("group", "", "only this consumer group's")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	topics, err := deadLetterTopics(*group)
	if err != nil {
		return err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEAD LETTER\tKEY\tFROM\tATTEMPTS\tWHEN\tREASON")
	n := 0
	err = scan(ctx, client, topics, func(d saga.DeadLetter, foreign error) error {
		n++
		if foreign != nil {
			_, err := fmt.Fprintf(table, "%s\t%s\t\t\t\tnot a dead letter: somebody else put it here\n", place(d.Record), d.Record.Key)
			return err
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s/%d/%d\t%d\t%s\t%s\n", place(d.Record), d.Record.Key, d.Topic, d.Partition, d.Offset,
			d.Attempts, d.Time.Format(time.RFC3339), strings.ReplaceAll(d.Reason, "\n", "; "))
		return err
	})
	if err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(c.out, "No dead letters.")
		return nil
	}
	return table.Flush()
}

// errFound ends a scan early.
var errFound = errors.New("found")

// find reads the dead letter at a place written TOPIC/PARTITION/OFFSET.
func find(ctx context.Context, client *broker.Client, at string) (saga.DeadLetter, error) {
	parts := strings.Split(at, "/")
	if len(parts) != 3 {
		return saga.DeadLetter{}, fmt.Errorf("%q names no dead letter; want TOPIC/PARTITION/OFFSET as dlq list prints it", at)
	}
	for _, p := range parts[1:] {
		if _, err := strconv.ParseUint(p, 10, 63); err != nil {
			return saga.DeadLetter{}, fmt.Errorf("%q names no dead letter: %q is not a number", at, p)
		}
	}
	var out saga.DeadLetter
	err := scan(ctx, client, parts[:1], func(d saga.DeadLetter, foreign error) error {
		if place(d.Record) != at {
			return nil
		}
		out = d
		return cmp.Or(foreign, errFound)
	})
	switch {
	case errors.Is(err, errFound):
		return out, nil
	case err != nil:
		return out, err
	}
	return out, fmt.Errorf("there is no dead letter %s", at)
}

func dlqShow(ctx context.Context, c *call) error {
	if err := c.parse(1, 1); err != nil {
		return err
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	d, err := find(ctx, client, c.flags.Arg(0))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "key: %s\n", d.Record.Key)
	for _, h := range d.Record.Headers {
		fmt.Fprintf(c.out, "%s: %s\n", h.Key, h.Value)
	}
	_, err = fmt.Fprintf(c.out, "\n%s\n", d.Record.Value)
	return err
}

func dlqRedrive(ctx context.Context, c *call) error {
	group := c.flags.String("group", "", "all dead letters of this consumer group")
	if err := c.parse(0, -1); err != nil {
		return err
	}
	if (*group == "") == (c.flags.NArg() == 0) {
		c.flags.Usage()
		return ErrUsage
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	var letters []saga.DeadLetter
	for _, at := range c.flags.Args() {
		d, err := find(ctx, client, at)
		if err != nil {
			return err
		}
		letters = append(letters, d)
	}
	if *group != "" {
		topics, err := deadLetterTopics(*group)
		if err != nil {
			return err
		}
		if err := scan(ctx, client, topics, func(d saga.DeadLetter, foreign error) error {
			if foreign == nil {
				letters = append(letters, d)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	records := make([]broker.Record, len(letters))
	for i, d := range letters {
		records[i] = d.Redrive()
	}
	var failed []error
	for i, err := range client.Produce(ctx, records) {
		if err != nil {
			failed = append(failed, fmt.Errorf("redrive %s: %w", place(letters[i].Record), err))
			continue
		}
		fmt.Fprintf(c.out, "%s -> %s\n", place(letters[i].Record), records[i].Topic)
	}
	return errors.Join(failed...)
}
