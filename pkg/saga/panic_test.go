package saga_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// touchy panics where its field says so.
type touchy struct {
	P     *int   `json:"p"`
	Where string `json:"where"`
}

func (e touchy) Validate() error {
	if e.Where == "Validate" {
		_ = *e.P
	}
	return nil
}

type unreadable struct{}

func (*unreadable) UnmarshalJSON([]byte) error { panic("UnmarshalJSON") }

type unwritable struct{ where string }

func (e unwritable) MarshalJSON() ([]byte, error) {
	if e.where == "MarshalJSON" {
		panic("MarshalJSON")
	}
	return []byte("{}"), nil
}

func (e unwritable) Validate() error {
	if e.where == "Validate" {
		panic("Validate of an emitted event")
	}
	return nil
}

type unspeakable struct{}

func (unspeakable) Error() string { panic("Error") }

// A panic in anything that a message's types or handlers do buries that message. The others are handled, and the
// process lives.
func TestPanics(t *testing.T) {
	t.Parallel()
	in, out := saga.NewTopic[touchy]("question"), saga.NewTopic[unwritable]("answer")
	broken := saga.NewTopic[unreadable]("broken")
	svc := saga.Service{Name: "svc", Routes: []saga.Route{
		saga.On(in, func(_ context.Context, _ pgx.Tx, m saga.Msg[touchy]) ([]saga.Out, error) {
			switch m.Data.Where {
			case "emit MarshalJSON":
				return saga.Emit(m, out, unwritable{"MarshalJSON"}), nil
			case "emit Validate":
				return saga.Emit(m, out, unwritable{"Validate"}), nil
			case "handler":
				panic("handler")
			case "Error":
				return nil, saga.Permanent(unspeakable{})
			}
			return saga.Emit(m, out, unwritable{}), nil
		}, out),
		saga.On(broken, func(context.Context, pgx.Tx, saga.Msg[unreadable]) ([]saga.Out, error) { return nil, nil }),
	}}
	for name, tt := range map[string]struct {
		topic, value, reason string
		stacks               int // in the log, at least 1: once where it cannot go otherwise
	}{
		"Validate":         {"question", `{"where":"Validate"}`, "nil pointer", 1},
		"UnmarshalJSON":    {"broken", `{}`, "UnmarshalJSON", 1},
		"MarshalJSON":      {"question", `{"where":"emit MarshalJSON"}`, "MarshalJSON", 0},
		"emitted Validate": {"question", `{"where":"emit Validate"}`, "Validate of an emitted event", 0},
		"handler":          {"question", `{"where":"handler"}`, "handler", 0},
		"Error":            {"question", `{"where":"Error"}`, "panicked: Error", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			var log bytes.Buffer
			bad := broker.Record{Topic: tt.topic, Offset: 3, Key: []byte("k"), Value: []byte(tt.value)}
			good := broker.Record{Topic: "question", Offset: 4, Key: []byte("g"), Value: []byte(`{}`)}
			err := saga.Deliver(t.Context(), svc, saga.Config{DB: db, Attempts: 2, Backoff: 1, Log: slog.New(slog.NewJSONHandler(&log, nil))}, bad, good)
			if err != nil {
				t.Fatal(err)
			}
			events := sagatest.Drain(t, db)
			letters := dead(t, events)
			if len(events) != 2 || len(letters) != 1 || letters[0].Offset != 3 || !strings.Contains(letters[0].Reason, tt.reason) {
				t.Fatalf("%d events, dead letters %+v, want one with %q", len(events), letters, tt.reason)
			}
			if n := strings.Count(log.String(), `"stack":`); tt.stacks > 0 && n != tt.stacks {
				t.Errorf("the log has %d stacks:\n%s", n, log.String())
			}
			if strings.Contains(name, "emit") || name == "MarshalJSON" {
				return // a replay does not emit
			}
			if err := saga.Replay(t.Context(), db, svc, slog.New(slog.DiscardHandler), []broker.Record{bad}, func(_ pgx.Tx, handled, left int) error {
				if handled != 0 || left != 1 {
					return fmt.Errorf("%d handled, %d left out", handled, left)
				}
				return nil
			}); err != nil {
				t.Errorf("replay: %v", err)
			}
		})
	}
	if _, err := saga.Decode(broken, broker.Record{Topic: "broken", Value: []byte(`{}`)}); err == nil {
		t.Error("Decode: no error")
	}
	if _, err := saga.Encode("svc", saga.New(t.Context(), out, "k", unwritable{"MarshalJSON"})); err == nil {
		t.Error("Encode: no error")
	}
}

// A hook that panics changes nothing about what was committed, and the other hooks run.
func TestPanickingHook(t *testing.T) {
	t.Parallel()
	db := database(t)
	var ran []string
	var log bytes.Buffer
	svc := service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		saga.AfterCommit(ctx, func() { ran = append(ran, "first"); panic("hook") })
		saga.AfterCommit(ctx, func() { ran = append(ran, "second") })
		return work(ctx, tx, m)
	})
	if err := saga.Deliver(t.Context(), svc, saga.Config{DB: db, Log: slog.New(slog.NewJSONHandler(&log, nil))}, ask(t, "a", 1)); err != nil {
		t.Fatal(err)
	}
	waiting, err := outbox.Waiting(t.Context(), db, 10)
	if err != nil || len(waiting) != 1 || len(effects(t, db)) != 1 || strings.Join(ran, " ") != "first second" {
		t.Errorf("%d events, effects %v, hooks %v, %v", len(waiting), effects(t, db), ran, err)
	}
	if !strings.Contains(log.String(), "a hook panicked") {
		t.Errorf("the log is silent: %s", log.String())
	}
}
