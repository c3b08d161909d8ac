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
)

// deadLetterTopics are those of all consumer groups that have one, or of one group. The broker knows them: a service
// need not be compiled in.
func deadLetterTopics(ctx context.Context, client *broker.Client, group string) ([]string, error) {
	all, err := saga.DeadLetterTopics(ctx, client)
	if err != nil || group == "" {
		return all, err
	}
	topic := saga.DeadLetterTopic(group)
	if !slices.Contains(all, topic) {
		return nil, noSuchGroup(group, "the dead letter topics", all)
	}
	return []string{topic}, nil
}

// noSuchGroup is the error of a consumer group that is not there, with what is.
func noSuchGroup(group, what string, there []string) error {
	return fmt.Errorf("no consumer group %q; %s are %s", group, what, cmp.Or(strings.Join(there, ", "), "none"))
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

func offsetOf(r broker.Record) string { return fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset) }

func dlqList(ctx context.Context, c *Call) error {
	group := c.Flags.String("group", "", "only this consumer group's")
	every := c.Flags.Bool("all", false, "those that were dealt with, too")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	client, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	topics, err := deadLetterTopics(ctx, client, *group)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
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
		fmt.Fprintln(c.Out, map[bool]string{true: "No dead letters.", false: "No dead letters wait."}[*every])
		return nil
	}
	for _, d := range letters {
		if d.Group == "" {
			fmt.Fprintf(table, "%s\t%s\t\t\t\t%s\n", offsetOf(d.Record), d.Record.Key, d.Reason)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s/%d/%d\t%d\t%s\t%s\n", offsetOf(d.Record), d.Record.Key, d.Topic, d.Partition, d.Offset,
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
		case offsetOf(d.Record) != at:
		case d.Group == "":
			return d, errors.New(d.Reason)
		default:
			return d, nil
		}
	}
	return saga.DeadLetter{}, fmt.Errorf("there is no dead letter %s", at)
}

func dlqShow(ctx context.Context, c *Call) error {
	if err := c.Parse(1, 1); err != nil {
		return err
	}
	client, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	d, err := find(ctx, client, c.Flags.Arg(0))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Out, "key: %s\n", d.Record.Key)
	for _, h := range d.Record.Headers {
		fmt.Fprintf(c.Out, "%s: %s\n", h.Key, h.Value)
	}
	_, err = fmt.Fprintf(c.Out, "\n%s\n", d.Record.Value)
	return err
}

// chosen are the dead letters at the places that the arguments name, or those of a group that wait.
func chosen(ctx context.Context, c *Call, client *broker.Client, group string) (letters []saga.DeadLetter, err error) {
	if group != "" {
		topics, err := deadLetterTopics(ctx, client, group)
		if err != nil {
			return nil, err
		}
		return saga.WaitingLetters(ctx, client, topics...)
	}
	for _, at := range c.Flags.Args() {
		d, err := find(ctx, client, at)
		if err != nil {
			return nil, err
		}
		letters = append(letters, d)
	}
	return letters, nil
}

// choose reads which dead letters a command is about.
func choose(ctx context.Context, c *Call) (*broker.Client, []saga.DeadLetter, error) {
	group := c.Flags.String("group", "", "all dead letters of this consumer group that wait")
	if err := c.Parse(0, -1); err != nil {
		return nil, nil, err
	}
	if (*group == "") == (c.Flags.NArg() == 0) {
		c.Flags.Usage()
		return nil, nil, ErrUsage
	}
	client, err := c.Connect(ctx)
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

func dlqRedrive(ctx context.Context, c *Call) error {
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
			failed = append(failed, fmt.Errorf("redrive %s: %w", offsetOf(letters[i].Record), err))
			continue
		}
		fmt.Fprintf(c.Out, "%s -> %s\n", offsetOf(letters[i].Record), letters[i].Topic)
	}
	return errors.Join(failed...)
}

func dlqPass(ctx context.Context, c *Call) error {
	client, letters, err := choose(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := saga.PassLetters(ctx, client, letters); err != nil {
		return err
	}
	for _, d := range letters {
		fmt.Fprintf(c.Out, "%s passed\n", offsetOf(d.Record))
	}
	return nil
}
