package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/saga"
)

// graph prints the choreography.
func graph(ctx context.Context, c *Call) error {
	format := c.Flags.String("format", "mermaid", "mermaid: a flowchart; acl: what each service may read and write, as Kafka's kafka-acls.sh takes it")
	running := c.Flags.Bool("from-services", false, "as the running services tell it, and not as they were when this command was built")
	check := c.Flags.String("check", "", "fail unless this document shows the graph as it is")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	if (*format != "mermaid" && *format != "acl") || (*format == "acl" && *check != "") {
		c.Flags.Usage()
		return ErrUsage
	}
	declared, err := c.declarations(ctx, *running)
	if err != nil {
		return err
	}
	if *format == "acl" {
		return c.printACLs(declared)
	}
	drawn := saga.Draw(declared...)
	if *check == "" {
		_, err := io.WriteString(c.Out, drawn)
		return err
	}
	doc, err := os.ReadFile(*check)
	if err != nil {
		return err
	}
	if !strings.Contains(string(doc), "```mermaid\n"+drawn+"```\n") {
		return fmt.Errorf("%s does not show the choreography as the routes declare it; put the output of `converge graph` into its mermaid block", *check)
	}
	return nil
}

// printACLs prints what each service may do, for the principal that is called as the service: commands for Kafka's own
// tool.
func (c *Call) printACLs(services []saga.Declaration) error {
	s := app.NewSettings(c.getenv)
	brokers := app.ReadBroker(s, "").Brokers
	if err := s.Err(); err != nil {
		return err
	}
	var b strings.Builder
	for _, d := range services {
		allow := func(kind string, names []string, operations ...string) {
			if len(names) == 0 {
				return
			}
			fmt.Fprintf(&b, "kafka-acls.sh --bootstrap-server %s --add --allow-principal User:%s", strings.Join(brokers, ","), d.Service)
			for _, o := range operations {
				b.WriteString(" --operation " + o)
			}
			for _, n := range names {
				b.WriteString(" --" + kind + " " + n)
			}
			b.WriteString("\n")
		}
		var letters []string
		for _, g := range d.Groups() {
			letters = append(letters, saga.DeadLetterTopic(g))
		}
		fmt.Fprintf(&b, "# %s\n", d.Service)
		allow("topic", d.Consumes(), "Read", "DescribeConfigs")
		allow("topic", append(d.Emits(), letters...), "Write", "DescribeConfigs")
		allow("group", d.Groups(), "Read")
	}
	_, err := io.WriteString(c.Out, b.String())
	return err
}
