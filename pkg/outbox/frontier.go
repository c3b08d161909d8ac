package outbox

// frontier is the id up to which nothing can come any more that was not published. From there on events may be taken
// from memory, in the order of their ids, for as long as no id is missing: a missing one may belong to another
// instance's transaction, or to one that was rolled back.
//
// Ids are taken from a sequence before their transactions commit, so that an id is missing does not tell whether it
// will come. Transaction ids do: whoever takes an outbox id has one by then, since it holds a lock on its key's row. So
// when the relay takes a transaction id of its own, and later all below that have ended, then a look into the table
// shows every event up to the highest id that had been published when it took it.
type frontier struct {
	known bool
	base  int64              // the frontier; meaningful if known
	above map[int64]struct{} // published beyond it

	highest int64 // id published so far
	barrier int64 // up to here all will be known
	horizon int64 // when all transactions below this one have ended; 0: no barrier is set
}

// maxAbove bounds what is remembered beyond the frontier: an old transaction somewhere can hold it up for hours.
const maxAbove = 100_000

// closed says that no id up to the highest published one is missing.
func (f *frontier) closed() bool { return f.known && len(f.above) == 0 }

// has tells whether the id was published.
func (f *frontier) has(id int64) bool {
	_, beyond := f.above[id]
	return beyond || (f.known && id <= f.base)
}

// publish notes that the id was published, or waits in a lane, which comes to the same: it is not looked for any more.
func (f *frontier) publish(id int64) {
	f.highest = max(f.highest, id)
	if f.known && id <= f.base {
		return
	}
	if !f.known && f.horizon != 0 && id <= f.barrier { // what waits in lanes is seen by each look until the frontier is known
		return
	}
	if f.above == nil {
		f.above = map[int64]struct{}{}
	}
	f.above[id] = struct{}{}
	f.advance()
	if len(f.above) > maxAbove { // begin again, from where the next look will be
		f.known, f.horizon = false, 0
		clear(f.above)
	}
}

func (f *frontier) advance() {
	for f.known {
		if _, ok := f.above[f.base+1]; !ok {
			return
		}
		f.base++
		delete(f.above, f.base)
	}
}

// looked notes that everything was published that a look into the table showed, which began with the snapshot.
func (f *frontier) looked(s snapshot) {
	if f.horizon != 0 && s.xmin >= f.horizon {
		f.known, f.base = true, max(f.base, f.barrier)
		for id := range f.above {
			if id <= f.base {
				delete(f.above, id)
			}
		}
		f.advance()
		f.horizon = 0
	}
	if s.own != 0 && f.wanting() {
		f.barrier, f.horizon = max(s.highest, f.base), s.own
	}
}

// wanting tells whether the next look should take a transaction id, to begin from.
func (f *frontier) wanting() bool { return !f.closed() && f.horizon == 0 }

// snapshot is what a look into the table begins with.
type snapshot struct {
	xmin    int64 // all transactions below had ended
	last    int64 // id that had been taken
	highest int64 // id that had been published
	own     int64 // a transaction id taken afterwards, higher than all that were in use; 0: none was taken
}
