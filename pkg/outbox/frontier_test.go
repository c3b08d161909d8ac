package outbox

import (
	"testing"

	"pgregory.net/rapid"
)

// world is a database as the frontier must imagine it: transactions that take ids, and end when they like.
type world struct {
	xid, id   int64
	ended     int64             // the highest transaction that has
	running   map[int64][]int64 // the ids that each transaction has taken
	committed map[int64]bool    // ids
	published map[int64]bool
	frontier  frontier
	snapshot  *snapshot // of a look that has not read the table yet
}

func (w *world) begin() { w.xid++; w.running[w.xid] = nil }

func (w *world) end(xid int64, commit bool) {
	for _, id := range w.running[xid] {
		w.committed[id] = commit
	}
	delete(w.running, xid)
	w.ended = max(w.ended, xid)
}

// look begins to look into the table, as the relay does: the snapshot is one statement's, and the rows are the next
// one's.
func (w *world) look() {
	s := snapshot{xmin: w.ended + 1, highest: w.frontier.highest} // what has begun and not ended is below, or unknown
	for xid := range w.running {
		s.xmin = min(s.xmin, xid)
	}
	w.snapshot = &s
}

// read publishes what is committed by now.
func (w *world) read() {
	for id := int64(1); id <= w.id; id++ {
		if w.committed[id] && !w.published[id] {
			w.published[id] = true
			w.frontier.publish(id)
		}
	}
	if w.frontier.wanting() {
		w.xid++
		w.snapshot.own = w.xid
		w.ended = max(w.ended, w.xid)
	}
	w.frontier.looked(*w.snapshot)
	w.snapshot = nil
}

// next publishes the event that follows the frontier, if it is there, as the relay does from memory.
func (w *world) next() {
	if id := w.frontier.base + 1; w.frontier.closed() && w.committed[id] {
		w.published[id] = true
		w.frontier.publish(id)
	}
}

// check fails where the frontier has passed an event that was not published or can still come.
func (w *world) check(t *rapid.T) {
	if !w.frontier.known {
		return
	}
	for xid, ids := range w.running {
		for _, id := range ids {
			if id <= w.frontier.base {
				t.Fatalf("the frontier is %d, and transaction %d can still commit %d", w.frontier.base, xid, id)
			}
		}
	}
	for id, committed := range w.committed {
		if committed && id <= w.frontier.base && !w.published[id] {
			t.Fatalf("the frontier is %d, and %d was never published", w.frontier.base, id)
		}
	}
}

// Whatever transactions do, nothing that is missing below the frontier can come any more; and when all have ended, a
// few looks bring it to the end.
func TestFrontierPassesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{running: map[int64][]int64{}, committed: map[int64]bool{}, published: map[int64]bool{}}
		pick := func(t *rapid.T) int64 {
			var some []int64
			for xid := int64(1); xid <= w.xid; xid++ {
				if _, ok := w.running[xid]; ok {
					some = append(some, xid)
				}
			}
			if len(some) == 0 {
				t.Skip("no transaction runs")
			}
			return rapid.SampledFrom(some).Draw(t, "transaction")
		}
		t.Repeat(map[string]func(*rapid.T){
			"":      w.check,
			"begin": func(*rapid.T) { w.begin() },
			"emit":  func(t *rapid.T) { x := pick(t); w.id++; w.running[x] = append(w.running[x], w.id) },
			"commit": func(t *rapid.T) {
				w.end(pick(t), true)
			},
			"roll back": func(t *rapid.T) { w.end(pick(t), false) },
			"look":      func(*rapid.T) { w.look() },
			"read": func(t *rapid.T) {
				if w.snapshot == nil {
					t.Skip("it has not looked")
				}
				w.read()
			},
			"next": func(t *rapid.T) {
				if w.snapshot != nil {
					t.Skip("it is looking")
				}
				w.next()
			},
		})
		for xid := range w.running {
			w.end(xid, true)
		}
		for range 4 {
			w.look()
			w.read()
		}
		w.check(t)
		if !w.frontier.closed() {
			t.Fatalf("all transactions have ended, and the frontier is still open at %d of %d", w.frontier.base, w.id)
		}
	})
}

// A transaction that never ends does not make the relay remember everything it publishes meanwhile; and when it does
// end, the relay finds back.
func TestFrontierForgets(t *testing.T) {
	f := frontier{}
	old := func() snapshot { return snapshot{xmin: 5, own: 10, highest: f.highest} }
	for id := int64(2); id < 3*maxAbove; id++ { // 1 is the old transaction's
		f.publish(id)
		if id%1000 == 0 {
			f.looked(old())
		}
		if len(f.above) > maxAbove {
			t.Fatalf("%d ids are remembered", len(f.above))
		}
	}
	if f.closed() {
		t.Fatal("the frontier passed a transaction that runs")
	}
	f.publish(1)
	for range 3 {
		f.looked(snapshot{xmin: 11, own: 11, highest: f.highest})
	}
	if !f.closed() || f.base != 3*maxAbove-1 {
		t.Errorf("known %v, base %d, %d above; want the frontier at %d", f.known, f.base, len(f.above), 3*maxAbove-1)
	}
}

// More rows than the frontier remembers wait in the table, where each look sees them again: a few looks find it all the
// same.
func TestFrontierIsFoundBehindABacklog(t *testing.T) {
	f := frontier{}
	const waiting = 3 * maxAbove
	for look := int64(1); !f.closed(); look++ {
		if look > 5 {
			t.Fatalf("not found after %d looks", look-1)
		}
		s := snapshot{xmin: 10 * look, highest: f.highest}
		if f.wanting() {
			s.own = 10 * look
		}
		for id := int64(1); id <= waiting; id++ {
			f.publish(id)
		}
		f.looked(s)
	}
	if f.base != waiting {
		t.Errorf("the frontier is %d, want %d", f.base, waiting)
	}
}
