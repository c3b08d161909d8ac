package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// finding and checked are what clients see of the checker.
type (
	finding struct {
		OrderID string `json:"orderId"`
		Subject string `json:"subject"`
		Kind    string `json:"kind"`
		Detail  string `json:"detail"`
		Repair  struct {
			Action string `json:"action"`
			State  string `json:"state"`
			Detail string `json:"detail"`
		} `json:"repair"`
	}
	checked struct {
		ID       string    `json:"checkId"`
		Checked  int64     `json:"checked"`
		InFlight int64     `json:"inFlight"`
		Failed   []any     `json:"failed"`
		Findings []finding `json:"findings"`
	}
)

// check has everything checked.
func (s *spine) check(ctx context.Context, repair bool) (checked, error) {
	return check(ctx, s.url("checker"), repair)
}

func check(ctx context.Context, checker string, repair bool) (c checked, err error) {
	a, err := request(ctx, http.MethodPost, checker+"/checks", map[string]any{"repair": repair, "by": "the test"})
	switch {
	case err != nil:
		return c, err
	case a.status != http.StatusOK:
		return c, fmt.Errorf("POST /checks: %d %s", a.status, a.body)
	}
	return c, json.Unmarshal(a.body, &c)
}

// clean waits until a check finds nothing and nothing is on its way.
func (s *spine) clean(t testing.TB) {
	t.Helper()
	eventually(t, "the services agree", func() error {
		c, err := s.check(t.Context(), false)
		if err == nil && (len(c.Findings) > 0 || c.InFlight > 0 || c.Failed != nil) {
			err = fmt.Errorf("%d on their way, not looked at: %v, found: %+v", c.InFlight, c.Failed, c.Findings)
		}
		return err
	})
}

// finds waits until a check finds just this, and nothing is on its way.
func (s *spine) finds(t testing.TB, kinds []string) {
	t.Helper()
	eventually(t, "a check finds "+strings.Join(kinds, ", "), func() error {
		c, err := s.check(t.Context(), false)
		if err != nil {
			return err
		}
		var got []string
		for _, f := range c.Findings {
			got = append(got, f.Kind)
		}
		slices.Sort(got)
		if c.InFlight > 0 || !slices.Equal(got, kinds) {
			return fmt.Errorf("%d on their way, found: %+v", c.InFlight, c.Findings)
		}
		return nil
	})
}

// Whatever is planted, alone and in pairs, is found, named exactly, and repaired, or left to a person who then can; and
// after that all is well. Nothing is planted while a saga is on its way: what is then is another test's.
func TestPlanted(t *testing.T) {
	s := setup(t)
	g := s.garden(t)
	all := plants()
	var sets [][]planted
	sets = append(sets, []planted{{base: confirmed}}) // an order for the operator's command
	for i, a := range all {
		sets = append(sets, []planted{a})
		for _, b := range all[i+1:] {
			if a.meets(b) {
				sets = append(sets, []planted{a, b})
			}
		}
	}
	repairable := slices.DeleteFunc(slices.Clone(all), func(p planted) bool { return p.repair != "DONE" })
	orders := s.beds(t, append(sets, repairable))
	s.clean(t)
	for _, set := range sets[1:] {
		var names []string
		for _, p := range set {
			names = append(names, p.name)
		}
		ok := t.Run(strings.Join(names, " and "), func(t *testing.T) {
			g.T = t
			var kinds []string
			at := make([]string, len(set))
			for i, p := range set {
				at[i] = p.plant(g, orders[p.base].next())
				kinds = append(kinds, p.kinds...)
			}
			slices.Sort(kinds)
			s.finds(t, kinds)

			c, err := s.check(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.Findings {
				left := slices.ContainsFunc(set, func(p planted) bool { return p.repair != "DONE" && slices.Contains(p.kinds, f.Kind) })
				if want := map[bool]string{true: "NONE", false: "DONE"}[left]; f.Repair.State != want {
					t.Errorf("%s of %s%s: %+v, want %s", f.Kind, f.OrderID, f.Subject, f.Repair, want)
				}
			}
			for i, p := range set {
				if p.undo != nil {
					p.undo(g, at[i])
				}
			}
			s.repaired(t)
			s.clean(t)
		})
		if !ok {
			t.FailNow() // what was not repaired would be found by all that follow
		}
	}
	t.Run("every repair is on record", s.repairsOnRecord)
	t.Run("two checkers", func(t *testing.T) { s.twoCheckers(t, g, repairable, orders) })
	t.Run("the operator's command", func(t *testing.T) { s.checkCommand(t, g, orders[confirmed].next()) })
	t.Run("what somebody knows of", func(t *testing.T) { s.acknowledgeCommand(t, g) })
	t.Run("what search shows", func(t *testing.T) { s.searchShowsOtherwise(t, g) })
	t.Run("databases that were restored", func(t *testing.T) { s.restoredIsFound(t, g) })
	t.Run("an event that cannot leave", func(t *testing.T) { s.stuckOutbox(t, g) })
	t.Run("a dead letter", s.deadLettersWait)
}

// neverFalse holds the checker, which has looked all the time, to what it has found: dead letters that tests have
// buried and orders of strangers, and nothing else, whatever was on its way, away or behind.
func (s *spine) neverFalse(t *testing.T) {
	db, err := pgxpool.New(t.Context(), s.dbs["checker"].URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var checks int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM checks`).Scan(&checks); err != nil {
		t.Fatal(err)
	}
	rows, _ := db.Query(t.Context(), `SELECT DISTINCT f::text FROM checks, jsonb_array_elements(report -> 'findings') AS f
		WHERE f ->> 'kind' <> 'dead-letters' AND NOT coalesce(f ->> 'orderId', '') = ANY($1)`, s.strangers)
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(wrong) > 0 || checks < 20 {
		t.Errorf("%d checks, %v; found: %s", checks, err, strings.Join(wrong, "\n"))
	}
}
