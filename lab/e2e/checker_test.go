package e2e_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/services/cli"
	"github.com/converge-dev/converge/testkit/pgtest"
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

// twoCheckers has two instances repair everything at the same time, again and again: who comes second finds it done,
// and nothing is done twice.
func (s *spine) twoCheckers(t *testing.T, g *garden, set []planted, orders map[string]*bed) {
	g.T = t
	second := s.launch(t, "checker", pgtest.FreeAddr(t))
	second.ready(t)
	defer second.stop(t)
	var patients []order
	for _, p := range set {
		o := orders[p.base].next()
		if p.plant(g, o); p.base != "" {
			patients = append(patients, o)
		}
	}
	var both errgroup.Group
	for _, checker := range []string{s.url("checker"), second.url()} {
		both.Go(func() error {
			for range 5 {
				if _, err := check(t.Context(), checker, true); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	s.repaired(t)
	s.clean(t)
	for _, o := range patients { // each is the one order of its user
		is, err := fetch[order](t.Context(), s.url("order")+"/orders/"+o.ID)
		if err != nil {
			t.Fatal(err)
		}
		want := int64(opening)
		if is.Status == confirmed {
			want -= is.Amount
		}
		if a, err := fetch[account](t.Context(), s.url("payment")+"/accounts/"+o.UserID); err != nil || a.Balance != want {
			t.Errorf("order %s of %d is %s, and its user has %d (%v), want %d", o.ID, is.Amount, is.Status, a.Balance, err, want)
		}
	}
}

// acknowledgeCommand has the operator acknowledge what is found at a user's further account, whose name has a tab, as a
// check prints it, and take it back.
func (s *spine) acknowledgeCommand(t *testing.T, g *garden) {
	g.T = t
	user := unique("user")
	for _, currency := range []string{"EUR", "USD"} {
		s.deposit(t, user, 100, currency)
	}
	g.exec(g.payment, `UPDATE accounts SET balance = balance + 7 WHERE id = $1`, user+"\tUSD")
	s.finds(t, []string{"balance-mismatch"})
	said := func(found bool, says string, args ...string) {
		t.Helper()
		out, err := s.command(t, append(args, "-url", s.url("checker"))...)
		if errors.Is(err, cli.ErrFound) != found || err != nil && !found || !strings.Contains(out, says) {
			t.Errorf("converge %q: %v, says\n%s\nwant %q", args, err, out, says)
		}
	}
	at := user + `\tUSD`
	said(true, "balance-mismatch  "+at+"  ", "check")
	said(false, "balance-mismatch at "+at+" is acknowledged until ", "check", "ack", "balance-mismatch", at, "-note", "being looked into")
	said(false, "balance-mismatch  "+at+"  ", "check", "acks")
	said(false, ": being looked into", "check") // and nobody is alarmed
	said(false, "balance-mismatch at "+at+" is not acknowledged", "check", "unack", "balance-mismatch", at)
	said(true, "balance-mismatch  "+at+"  ", "check")
	said(false, "Nothing is acknowledged.", "check", "acks")
	s.repaired(t)
	s.clean(t)
}
