package cli

import (
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

// allLetters reads the topics from their beginnings. What somebody else has put there has no Group.
func allLetters(ctx context.Context, client *broker.Client, topics []string) (letters []saga.DeadLetter, err error) {
	for _, topic := range topics {
		err := client.Scan(ctx, topic, func(r broker.Record) error {
			d, foreign := saga.ParseDeadLetter(r)
			if foreign != nil {
				d.Reason = foreign.Error()
			}
			letters = append(letters, d)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return letters, nil
}

func place(r broker.Record) string { return fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset) }

func dlqList(ctx context.Context, c *call) error {
	group := c.flags.String("group", "", "only this consumer group's")
	every := c.flags.Bool("all", false, "those that were dealt with, too")
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
	if err := saga.KeepLetters(ctx, client, topics...); err != nil {
		return err
	}
	letters, err := saga.WaitingLetters(ctx, client, topics...)
	if *every {
		letters, err = allLetters(ctx, client, topics)
	}
	if err != nil {
		return err
	}
	if len(letters) == 0 {
		fmt.Fprintln(c.out, map[bool]string{true: "No dead letters.", false: "No dead letters wait."}[*every])
		return nil
	}
	for _, d := range letters {
		if d.Group == "" {
			fmt.Fprintf(table, "%s\t%s\t\t\t\t%s\n", place(d.Record), d.Record.Key, d.Reason)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s/%d/%d\t%d\t%s\t%s\n", place(d.Record), d.Record.Key, d.Topic, d.Partition, d.Offset,
			d.Attempts, d.Time.Format(time.RFC3339), strings.ReplaceAll(d.Reason, "\n", "; "))
	}
	return table.Flush()
}

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
	letters, err := allLetters(ctx, client, parts[:1])
	if err != nil {
		return saga.DeadLetter{}, err
	}
	for _, d := range letters {
		switch {
		case place(d.Record) != at:
		case d.Group == "":
			return d, errors.New(d.Reason)
		default:
			return d, nil
		}
	}
	return saga.DeadLetter{}, fmt.Errorf("there is no dead letter %s", at)
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

// chosen are the dead letters at the places that the arguments name, or those of a group that wait.
func chosen(ctx context.Context, c *call, client *broker.Client, group string) (letters []saga.DeadLetter, err error) {
	if group != "" {
		topics, err := deadLetterTopics(group)
		if err != nil {
			return nil, err
		}
		return saga.WaitingLetters(ctx, client, topics...)
	}
	for _, at := range c.flags.Args() {
		d, err := find(ctx, client, at)
		if err != nil {
			return nil, err
		}
		letters = append(letters, d)
	}
	return letters, nil
}

// choose reads which dead letters a command is about.
func choose(ctx context.Context, c *call) (*broker.Client, []saga.DeadLetter, error) {
	group := c.flags.String("group", "", "all dead letters of this consumer group that wait")
	if err := c.parse(0, -1); err != nil {
		return nil, nil, err
	}
	if (*group == "") == (c.flags.NArg() == 0) {
		c.flags.Usage()
		return nil, nil, ErrUsage
	}
	client, err := c.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	letters, err := chosen(ctx, c, client, *group)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return client, letters, nil
}

func dlqRedrive(ctx context.Context, c *call) error {
	client, letters, err := choose(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	letters = slices.DeleteFunc(letters, func(d saga.DeadLetter) bool { return d.Group == "" }) // came from nowhere
	errs, err := saga.RedriveLetters(ctx, client, letters)
	failed := []error{err}
	for i, err := range errs {
		if err != nil {
			failed = append(failed, fmt.Errorf("redrive %s: %w", place(letters[i].Record), err))
			continue
		}
		fmt.Fprintf(c.out, "%s -> %s\n", place(letters[i].Record), letters[i].Topic)
	}
	return errors.Join(failed...)
}

func dlqPass(ctx context.Context, c *call) error {
	client, letters, err := choose(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := saga.PassLetters(ctx, client, letters); err != nil {
		return err
	}
	for _, d := range letters {
		fmt.Fprintf(c.out, "%s passed\n", place(d.Record))
	}
	return nil
}
