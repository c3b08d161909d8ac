package saga_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// mortal is a service that handles nothing.
func mortal() saga.Service {
	return service(func(context.Context, pgx.Tx, saga.Msg[asked]) ([]saga.Out, error) {
		return nil, saga.Permanent(errors.New("bug"))
	})
}

// same compares what a record carries; nil and empty differ.
func same(a, b broker.Record, from int) error {
	if !bytes.Equal(a.Key, b.Key) || (a.Key == nil) != (b.Key == nil) {
		return fmt.Errorf("key %q, want %q", b.Key, a.Key)
	}
	if !bytes.Equal(a.Value, b.Value) || (a.Value == nil) != (b.Value == nil) {
		return fmt.Errorf("value %.100q, want %.100q", b.Value, a.Value)
	}
	if !slices.EqualFunc(a.Headers, b.Headers[from:], func(a, b broker.Header) bool {
		return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil)
	}) {
		return fmt.Errorf("headers %q, want %q", b.Headers[from:], a.Headers)
	}
	return nil
}

func anyBytes() *rapid.Generator[[]byte] {
	return rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOf(rapid.Byte()), rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }))
}

func anyRecord(t *rapid.T, offset int64) broker.Record {
	r := broker.Record{Topic: "question", Partition: 1, Offset: offset, Key: anyBytes().Draw(t, "key"), Value: append([]byte("{"), anyBytes().Draw(t, "value")...)}
	for range rapid.IntRange(0, 4).Draw(t, "headers") {
		name := rapid.OneOf(rapid.SampledFrom([]string{"ce_id", "ce_source", "ce_correlationid", "dlq-id", "dlq-time", "dlq-reason", "dlq-truncated", "converge-redrive", "converge-id", ""}),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "name")
		r.Headers = append(r.Headers, broker.Header{Key: name, Value: anyBytes().Draw(t, "header")})
	}
	return r
}

// Whatever a record is made of: from the dead letter topic it comes back bit for bit, however often it dies.
func TestDeadLettersComeBack(t *testing.T) {
	t.Parallel()
	db := database(t)
	offset := int64(0)
	rapid.Check(t, func(rt *rapid.T) {
		offset += 10
		want := anyRecord(rt, offset)
		next, svc := want, mortal()
		svc.Name = fmt.Sprint("svc", offset) // two records may have one id
		for life := range 3 {
			letters := dead(t, sagatest.Deliver(t, db, svc, next))
			if len(letters) != 1 {
				rt.Fatalf("life %d: %d dead letters", life, len(letters))
			}
			if d := letters[0]; d.Topic != "question" || d.Partition != 1 || d.Offset != next.Offset || d.Redriven() != (life > 0) {
				rt.Fatalf("life %d: %+v", life, d)
			}
			if next = letters[0].Redrive(); next.Topic != "question" {
				rt.Fatalf("goes back to %q", next.Topic)
			}
			if err := same(want, next, 2); err != nil {
				rt.Fatalf("life %d: %v", life, err)
			}
			next.Partition, next.Offset = 1, offset+int64(life)+1
		}
	})
}

// A dead letter can always be written, whatever is large about it.
func TestLargeDeadLetters(t *testing.T) {
	t.Parallel()
	text := func(n int) []byte { return bytes.Repeat([]byte("ä"), n/2) }
	var tiny []broker.Header
	for range 200_000 {
		tiny = append(tiny, broker.Header{Key: "a"})
	}
	long := service(func(context.Context, pgx.Tx, saga.Msg[asked]) ([]saga.Out, error) {
		return nil, saga.Permanent(errors.New(strings.Repeat("ä\xff\x00", 1<<20)))
	})
	for name, tt := range map[string]struct {
		record    broker.Record
		svc       saga.Service
		truncated bool
	}{
		"value":        {broker.Record{Key: []byte("k"), Value: text(3 << 20)}, mortal(), true},
		"key":          {broker.Record{Key: text(3 << 20), Value: []byte("x")}, mortal(), true},
		"header":       {broker.Record{Key: []byte("k"), Value: []byte("x"), Headers: []broker.Header{{Key: "h", Value: text(3 << 20)}}}, mortal(), true},
		"header name":  {broker.Record{Key: []byte("k"), Value: []byte("x"), Headers: []broker.Header{{Key: string(text(3 << 20))}}}, mortal(), true},
		"many headers": {broker.Record{Key: []byte("k"), Value: []byte("x"), Headers: tiny}, mortal(), true},
		"reason":       {broker.Record{Key: []byte("k"), Value: []byte(`{"n":1}`)}, long, false},
		"echo":         {broker.Record{Key: []byte("k"), Value: []byte(`{"n":` + strings.Repeat("9", 1<<20) + `}`)}, mortal(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			tt.record.Topic, tt.record.Partition, tt.record.Offset = "question", 2, 77
			letters := dead(t, sagatest.Deliver(t, db, tt.svc, tt.record, ask(t, "b", 1)))
			letters = slices.DeleteFunc(letters, func(d saga.DeadLetter) bool { return d.Offset != 77 })
			if len(letters) != 1 {
				t.Fatalf("%d dead letters", len(letters))
			}
			d, size := letters[0], 0
			for _, h := range d.Record.Headers {
				size += len(h.Key) + len(h.Value) + 10
			}
			if size += len(d.Record.Key) + len(d.Record.Value); size > 2<<20 {
				t.Errorf("the dead letter has %d bytes", size)
			}
			if len(d.Reason) > 4<<10 || !utf8.ValidString(d.Reason) {
				t.Errorf("the reason has %d bytes, UTF-8 %t", len(d.Reason), utf8.ValidString(d.Reason))
			}
			if d.Truncated != tt.truncated || d.Size != len(tt.record.Value) || d.Topic != "question" || d.Partition != 2 {
				t.Errorf("truncated %t, size %d, from %s/%d", d.Truncated, d.Size, d.Topic, d.Partition)
			}
			if tt.truncated {
				if !bytes.HasPrefix(tt.record.Value, d.Record.Value) || len(d.Record.Value) > 1<<10 || d.Record.Header("dlq-sha256") == "" {
					t.Errorf("a reference with %d bytes of the value", len(d.Record.Value))
				}
				if back := d.Redrive(); back.Topic != "" {
					t.Errorf("the first bytes went back to %s as if they were the message", back.Topic)
				}
			}
		})
	}
}

// A message that is too large for a dead letter is read where it lies when it is redriven.
func TestRedriveOfAReference(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client := connect(t, c)
		topic := c.Topic(t, 1)
		name := strings.ToLower(brokertest.Name(t))
		c.CreateTopic(t, saga.DeadLetterTopic(name), 1)
		original := broker.Record{Topic: topic, Key: []byte("k"), Value: []byte("{not json"), Headers: []broker.Header{{Key: "\xff", Value: nil}, {Key: "empty", Value: []byte{}}}}
		produce := func(records ...broker.Record) {
			t.Helper()
			if err := cmp.Or(client.Produce(t.Context(), records)...); err != nil {
				t.Fatal(err)
			}
		}
		produce(broker.Record{Topic: topic, Key: []byte("k"), Value: []byte("first")}, original)
		reference := func(offset, sum string) saga.DeadLetter {
			d, err := saga.ParseDeadLetter(broker.Record{Topic: saga.DeadLetterTopic(name), Value: []byte("{n"), Headers: []broker.Header{
				{Key: "dlq-id", Value: []byte(uuid.NewString())}, {Key: "dlq-handler", Value: []byte(name)}, {Key: "dlq-topic", Value: []byte(topic)},
				{Key: "dlq-partition", Value: []byte("0")}, {Key: "dlq-offset", Value: []byte(offset)}, {Key: "dlq-truncated", Value: []byte("true")},
				{Key: "dlq-sha256", Value: []byte(sum)}, {Key: "dlq-time", Value: []byte("2026-11-28T00:00:00Z")},
			}})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		sum := sha(original.Value)
		errs, err := saga.RedriveLetters(t.Context(), client, []saga.DeadLetter{reference("1", sum), reference("0", sum), reference("9", sum)})
		if err != nil || errs[0] != nil {
			t.Fatal(errs, err)
		}
		for i, want := range []string{"", "another one is at", "the topic has it no longer"} {
			if want != "" && (errs[i] == nil || !strings.Contains(errs[i].Error(), want)) {
				t.Errorf("reference %d: %v, want %q", i, errs[i], want)
			}
		}
		back, err := client.ReadAt(t.Context(), topic, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := same(original, back, 2); err != nil || back.Header("converge-redrive") != fmt.Sprintf("%s@%s/0/1", name, topic) {
			t.Errorf("%v; %q", err, back.Headers)
		}
	})
}

// A message of 3 MiB that came compressed, and that nobody can handle, is buried as a reference, put back, and buried
// again.
func TestOversizedPoisonOnTheWire(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		b := setup(t, c)
		b.instance()
		poison := broker.Record{Topic: b.question.Name(), Key: []byte("k0"), Value: bytes.Repeat([]byte("x"), 3_000_000)}
		if err := b.client.Produce(t.Context(), []broker.Record{poison})[0]; err != nil {
			t.Fatal(err)
		}
		letters := func(n int) (letters []saga.DeadLetter) {
			t.Helper()
			deadline := time.Now().Add(30 * time.Second)
			for len(letters) < n && time.Now().Before(deadline) {
				letters = nil
				if err := b.client.Scan(t.Context(), saga.DeadLetterTopic(b.svc.Name), func(r broker.Record) error {
					d, err := saga.ParseDeadLetter(r)
					letters = append(letters, d)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			if len(letters) != n {
				t.Fatalf("%d dead letters, want %d", len(letters), n)
			}
			return letters
		}
		first := letters(1)[0]
		if !first.Truncated || first.Size != len(poison.Value) || string(first.Record.Key) != "k0" || !strings.Contains(first.Reason, "invalid character") {
			t.Errorf("buried as %+v", first)
		}
		if errs, err := saga.RedriveLetters(t.Context(), b.client, []saga.DeadLetter{first}); err != nil || errs[0] != nil {
			t.Fatal(errs, err)
		}
		second := letters(2)[1]
		if !second.Redriven() || second.Size != first.Size || second.Offset != first.Offset+1 || second.Record.Header("dlq-id") != first.Record.Header("dlq-id") {
			t.Errorf("buried again as %+v", second)
		}
	})
}

// A redriven message is handled once by its group, and by no other: whatever its id is, however often its letter was
// published or redriven, and when the inbox has forgotten the rest.
func TestRedriveOnceForItsGroup(t *testing.T) {
	t.Parallel()
	header := func(pairs ...string) (hs []broker.Header) {
		for i := 0; i < len(pairs); i += 2 {
			hs = append(hs, broker.Header{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		return hs
	}
	for name, in := range map[string]broker.Record{
		"an event":             ask(t, "a", 1),
		"no id":                {},
		"foreign id":           {Headers: header("ce_id", "evt-1", "ce_source", "/crm")},
		"foreign id, no time":  {Headers: header("ce_id", "evt-1")},
		"foreign UUID":         {Headers: header("ce_id", uuid.NewString(), "ce_source", "/crm")},
		"foreign id with time": {Headers: header("ce_id", "evt-1", "ce_time", "2026-01-02T03:04:05Z")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			in.Topic, in.Partition, in.Offset, in.Time = "question", 3, 5, time.Now().Add(-time.Hour)
			in.Key, in.Value = []byte("a"), []byte(`{"n":1}`)
			handled := map[string]int{}
			ids := map[uuid.UUID]bool{}
			broken := true
			svc := service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
				ids[m.ID] = true
				if broken {
					return nil, saga.Permanent(errors.New("bug"))
				}
				saga.AfterCommit(ctx, func() { handled["svc"]++ })
				return saga.Emit(m, answer, answered{m.Data.N}), nil
			})
			svc.Routes = append(svc.Routes, saga.On(question, func(ctx context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
				ids[m.ID] = true
				saga.AfterCommit(ctx, func() { handled["other"]++ })
				return nil, nil
			}).Named("other"))
			offset := int64(10)
			deliver := func(r broker.Record) []saga.DeadLetter {
				offset++
				r.Partition, r.Offset = 0, offset
				return dead(t, sagatest.Deliver(t, db, svc, r))
			}
			letter := dead(t, sagatest.Deliver(t, db, svc, in))[0]
			twin := letter // the relay published it twice
			letter.Record.Offset, letter.Record.Time = 1, time.Now()
			twin.Record.Offset, twin.Record.Time = 2, time.Now().Add(time.Second)
			again := deliver(letter.Redrive()) // and it dies again
			if len(again) != 1 || len(deliver(twin.Redrive())) != 0 {
				t.Fatalf("%d dead letters of the second death", len(again))
			}
			broken = false
			for range 2 {
				deliver(twin.Redrive())
				deliver(letter.Redrive())
			}
			if handled["svc"] != 0 {
				t.Fatalf("the first letter took effect again: %v", handled)
			}
			deliver(again[0].Redrive())
			if _, err := db.Exec(t.Context(), `UPDATE inbox SET seen_at = now() - interval '3 years'`); err != nil {
				t.Fatal(err)
			}
			if _, err := inbox.Prune(t.Context(), db, time.Hour, 100); err != nil {
				t.Fatal(err)
			}
			for _, d := range []saga.DeadLetter{again[0], letter, twin} {
				deliver(d.Redrive())
			}
			if handled["svc"] != 1 || handled["other"] != 1 {
				t.Errorf("handled %v, want once by each group", handled)
			}
			if len(ids) != 1 {
				t.Errorf("one message has the ids %v", ids)
			}
		})
	}
}

func sha(value []byte) string {
	h := sha256.Sum256(value)
	return hex.EncodeToString(h[:])
}
