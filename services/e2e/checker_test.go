package e2e_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/services/cli"
)

// checkCommand has the operator's command look, repair and look again.
func (s *spine) checkCommand(t *testing.T, g *garden, o order) {
	g.T = t
	check := func(found bool, says string, args ...string) {
		t.Helper()
		out, err := s.command(t, append([]string{"check", "-url", s.url("checker")}, args...)...)
		if errors.Is(err, cli.ErrFound) != found || err != nil && !found || !strings.Contains(out, says) {
			t.Errorf("converge check %v: %v, says\n%s\nwant %q", args, err, out, says)
		}
	}
	check(false, "The services agree.")
	g.exec(g.payment, unchargeSQL, o.ID)
	check(true, "confirmed-not-paid  "+o.ID)
	check(true, "would charge", "-order", o.ID)
	check(true, `"kind": "confirmed-not-paid"`, "-since", "1h", "-json")
	check(true, "charge done", "-order", o.ID, "-repair")
	check(false, "The services agree.", "-since", "1h")
	check(false, "1 order checked", "-order", o.ID)
	for _, wrong := range [][]string{{"-order", "1"}, {"-since", "yesterday"}, {"-order", o.ID, "-since", "1h"}, {"-order", "01980d2e-0000-7000-8000-000000000001"}} {
		if _, err := s.command(t, append([]string{"check", "-url", s.url("checker")}, wrong...)...); err == nil || errors.Is(err, cli.ErrFound) {
			t.Errorf("converge check %v: %v, want an error", wrong, err)
		}
	}
	s.clean(t)
}

// stuckOutbox puts an event into an outbox that no broker takes.
func (s *spine) stuckOutbox(t *testing.T, g *garden) {
	g.T = t
	g.exec(g.inventory, `INSERT INTO outbox (topic, headers, created_at) VALUES ('no.such.topic', '[]', now() - interval '1 hour')`)
	s.finds(t, []string{"outbox-stuck"})
	g.exec(g.inventory, `DELETE FROM outbox WHERE topic = 'no.such.topic'`)
	s.clean(t)
}

// deadLettersWait has a dead letter put back, which dies once more, and is then dealt with by an operator.
func (s *spine) deadLettersWait(t *testing.T) {
	key := unique("poison")
	if err := s.client(t).Produce(t.Context(), []broker.Record{{Topic: "order.created", Key: []byte(key), Value: []byte("{")}})[0]; err != nil {
		t.Fatal(err)
	}
	first, _ := s.deadLetter(t, "inventory", key)
	s.deadLetter(t, "analytics", key)
	s.finds(t, []string{"dead-letters", "dead-letters"})
	if _, err := s.check(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	s.deadLetter(t, "inventory", key, first)
	eventually(t, "what died again is left to a person", func() error {
		c, err := s.check(t.Context(), true)
		if err == nil && (len(c.Findings) != 2 || c.Findings[0].Repair.Action != "operator" || c.Findings[1].Repair.Action != "operator") {
			err = fmt.Errorf("found: %+v", c.Findings)
		}
		return err
	})
	for _, group := range []string{"inventory", "analytics"} {
		s.converge(t, "dlq", "pass", "-group", group)
	}
	s.clean(t)
}
