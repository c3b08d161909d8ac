package checker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// identified gives the services a database each, and the checker a memory of them.
func identified(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	r := recordsIn(t)
	b.cfg.Seen, b.cfg.Saw = r.seen, r.saw
	for i := range b.known {
		b.known[i] = &facts.Identity{ID: uuid.UUID{15: byte(i + 1)}, Epoch: 1, Copy: "7/00000001/5/6", Written: 1 << 20}
	}
	return b
}

// One order is wrong, which is few: it is repaired, unless a database is another one or another copy than before. That
// is told of the service whose it is, again and again, until somebody accepts it.
func TestChangedDatabaseHoldsRepairs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(is *facts.Identity)
		says   string // empty: it is the same database
	}{
		"another database":        {func(is *facts.Identity) { is.ID = uuid.Max }, "another database answers"},
		"restored, and said so":   {func(is *facts.Identity) { is.Epoch++ }, "somebody has said that the database was restored: its epoch is 2, and was 1"},
		"restored from a dump":    {func(is *facts.Identity) { is.Copy = "8/00000001/5/6" }, "another copy of the database answers"},
		"an older image":          {func(is *facts.Identity) { is.Written = 1 << 19 }, "an older image of the database's server answers"},
		"it has written more":     {func(is *facts.Identity) { is.Written *= 2 }, ""},
		"it crashed in a record":  {func(is *facts.Identity) { is.Written -= 100 }, ""},
		"it is as it was":         {func(*facts.Identity) {}, ""},
		"it is of an old version": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := identified(t)
			b.fill(hoursAgo(3)...)
			if r := b.check(Request{}); len(r.Findings) > 0 || r.Braked != "" {
				t.Fatalf("at first: %+v", r)
			}
			if tt.change == nil {
				b.known[shipping] = nil
			} else {
				tt.change(b.known[shipping])
			}
			b.exec(`UPDATE orders SET status = 'CANCELLED' WHERE id = $1`, hourAgo(0))
			undone := &b.commands
			changed := func(r Report) string {
				for _, f := range r.Findings {
					if f.Kind == DatabaseChanged {
						return f.Subject + ": " + f.Detail
					}
				}
				return ""
			}
			if tt.says == "" {
				if r := b.check(Request{Repair: true}); changed(r) != "" || r.Braked != "" || undone.Load() != 1 {
					t.Errorf("%d undone; %q; %+v", undone.Load(), r.Braked, r.Findings)
				}
				return
			}
			for _, request := range []Request{{Repair: true}, {Repair: true, Since: noon.Add(-3 * time.Hour)}, {Repair: true, Order: hourAgo(0)}} {
				r := b.check(request)
				if got := changed(r); !strings.HasPrefix(got, "shipping: "+tt.says) || !strings.Contains(got, "converge check -confirm") || undone.Load() != 0 ||
					r.Braked != "the database of shipping is not the one it was" {
					t.Errorf("%+v: %d undone; braked: %q; found %q", request, undone.Load(), r.Braked, got)
				}
			}
			if r := b.check(Request{Confirm: true}); changed(r) != "" || undone.Load() != 0 {
				t.Errorf("accepted: %d undone; %+v", undone.Load(), r.Findings)
			}
			if r := b.check(Request{Repair: true}); r.Braked != "" || undone.Load() != 1 {
				t.Errorf("after it was accepted: %d undone; braked: %q; %+v", undone.Load(), r.Braked, r.Findings)
			}
		})
	}
}

// An image that is older than the one before was accepted at what it has written: from there it must not go back again.
func TestWrittenIsRememberedAtItsMost(t *testing.T) {
	t.Parallel()
	b := identified(t)
	is := b.known[order]
	for _, step := range []struct {
		written int64
		confirm bool
		found   int
	}{{1 << 30, false, 0}, {1 << 29, false, 1}, {1 << 29, true, 0}, {1<<29 + 5, false, 0}, {1 << 28, false, 1}, {1 << 30, false, 0}} {
		is.Written = step.written
		if r := b.check(Request{Confirm: step.confirm}); len(r.Findings) != step.found {
			t.Errorf("%+v: found %+v", step, r.Findings)
		}
	}
}

// One address given twice is no disagreement of two services.
func TestOneDatabaseOfTwoServices(t *testing.T) {
	t.Parallel()
	b := identified(t)
	b.known[shipping].ID = b.known[order].ID
	_, err := b.checker().Check(t.Context(), Request{})
	var lost *ServiceError
	if !errors.As(err, &lost) || lost.Service != "shipping" || !strings.Contains(err.Error(), "the same database as order, which is asked at "+b.cfg.Services[order].URL) {
		t.Errorf("%v", err)
	}
}
