package cli

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/saga"
)

// createTopics creates the topics that the services declare.
func createTopics(ctx context.Context, c *Call) error {
	partitions := c.Flags.Int("partitions", app.DefaultPartitions, "partitions of each topic: so many instances of a service can share its work")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	settings := app.NewSettings(c.getenv)
	replication := app.ReadReplication(settings)
	if err := settings.Err(); err != nil {
		return err
	}
	declared, err := c.declarations(ctx, false)
	if err != nil {
		return err
	}
	specs := saga.DeclaredTopics(*partitions, declared...)
	for i := range specs {
		specs[i].Replication = replication
	}
	client, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EnsureTopics(ctx, specs); err != nil {
		return err
	}
	for _, s := range specs {
		fmt.Fprintf(c.Out, "%s (%d)\n", s.Name, s.Partitions)
	}
	return nil
}

// listGroups prints how far each consumer group is behind: those of the cluster, in the topics where they have
// committed something, and those that are declared, in all of their topics, so that one that has never come to a topic
// shows.
func listGroups(ctx context.Context, c *Call) error {
	only := c.Flags.String("group", "", "only this consumer group")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	declared, err := c.declarations(ctx, false)
	if err != nil {
		return err
	}
	client, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	groups, err := client.Groups(ctx)
	if err != nil {
		return err
	}
	topics := map[string][]string{}
	for _, d := range declared {
		for _, r := range d.Routes {
			topics[r.Group] = append(topics[r.Group], r.Topic)
		}
		groups = append(groups, d.Groups()...)
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	if *only != "" {
		if !slices.Contains(groups, *only) {
			return noSuchGroup(*only, "the consumer groups", groups)
		}
		groups = []string{*only}
	}
	if len(groups) == 0 {
		_, err := fmt.Fprintln(c.Out, "No consumer groups.")
		return err
	}
	table := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "GROUP\tTOPIC\tPARTITIONS\tLAG")
	for _, g := range groups {
		progress, err := client.ProgressOf(ctx, g, topics[g]...)
		if err != nil {
			return err
		}
		if len(progress) == 0 {
			fmt.Fprintf(table, "%s\t(nothing committed yet)\t\t\n", g)
		}
		for _, p := range progress {
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\n", g, p.Topic, p.Partitions, p.Lag)
		}
	}
	return table.Flush()
}
