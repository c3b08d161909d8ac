package proxy

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"sync/atomic"
)

// watched is a connection to PostgreSQL whose messages are read on their way. When a commit comes that is to be cut,
// the server gets it, and the client never learns of it: from then on every answer is dropped, and with the server's
// last word the connection is.
type watched struct {
	*link
	cutter *Cutter
	doomed atomic.Bool
	locks  atomic.Bool // in a transaction that has asked for row locks
	caught *Trap

	inTx    bool                 // between BEGIN and COMMIT
	dirty   bool                 // a statement that writes runs outside: the next Sync commits it
	kinds   map[string]statement // of prepared statements, by name
	locking map[string]bool      // those that ask for row locks
	client  frames
	server  frames
}

type statement int

const (
	reads statement = iota
	writes
	begins
	commits
	rollsBack
)

func (c *Cutter) watch(l *link) *watched {
	w := &watched{link: l, cutter: c, kinds: map[string]statement{}, locking: map[string]bool{}}
	w.client = frames{startup: true, on: w.asked}
	w.server = frames{on: w.answered}
	return w
}

func (w *watched) up() {
	defer w.link.server.CloseWrite() //nolint:errcheck // closed already, or about to be
	buf := make([]byte, 32<<10)
	for {
		n, err := w.link.client.Read(buf)
		if w.dead.Load() {
			if err != nil {
				return
			}
			continue
		}
		w.client.feed(buf[:n]) // before the server can answer
		if _, writeErr := w.link.server.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

func (w *watched) down() {
	defer w.link.client.CloseWrite() //nolint:errcheck // closed already, or about to be
	buf := make([]byte, 32<<10)
	for {
		n, err := w.link.server.Read(buf)
		w.server.feed(buf[:n])
		if t := w.caught; t != nil {
			w.caught = nil
			close(t.Caught)
			<-t.released
		}
		if !w.doomed.Load() && !w.dead.Load() {
			if _, writeErr := w.link.client.Write(buf[:n]); writeErr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// asked looks at a message of the client.
func (w *watched) asked(kind byte, body []byte) {
	switch kind {
	case 'Q': // a text, run at once
		w.run(kindOf(body), forUpdate.Match(body))
	case 'P': // Parse: a name and a text
		if name, text, ok := bytes.Cut(body, []byte{0}); ok {
			w.kinds[string(name)], w.locking[string(name)] = kindOf(text), forUpdate.Match(text)
		}
	case 'B': // Bind: a portal and a statement's name, which Execute follows
		if _, rest, ok := bytes.Cut(body, []byte{0}); ok {
			name, _, _ := bytes.Cut(rest, []byte{0})
			w.run(w.kinds[string(name)], w.locking[string(name)])
		}
	case 'S': // Sync
		if w.dirty && !w.inTx {
			w.committing()
		}
		w.dirty = false
	}
}

var forUpdate = regexp.MustCompile(`(?i)\bfor update\b`)

func (w *watched) run(s statement, locks bool) {
	if locks && w.inTx {
		w.locks.Store(true)
	}
	switch s {
	case begins:
		w.inTx = true
	case rollsBack:
		w.inTx = false
		w.locks.Store(false)
	case commits:
		w.inTx, w.dirty = false, false
		w.locks.Store(false)
		w.committing()
	case writes:
		w.dirty = w.dirty || !w.inTx
	}
}

func (w *watched) committing() {
	if !w.doomed.Load() && w.cutter.take() {
		w.doomed.Store(true)
	}
}

// answered looks at a message of the server: 'Z' says that it has done all that it was asked, and 'T' in it that the
// transaction goes on.
func (w *watched) answered(kind byte, body []byte) {
	if kind == 'Z' && string(body) == "T" && w.locks.Load() {
		w.caught = w.cutter.trap.Swap(nil)
	}
	if kind == 'Z' && w.doomed.Load() {
		w.cut()
	}
}

// A text can hold several statements, of which the last commits.
var statementPattern = regexp.MustCompile(`(?is)^(?:.*;)?\s*(commit|end)\b|^\s*(begin|start\s+transaction)\b|^\s*(rollback|abort)\b|^\s*(insert|update|delete|with)\b`)

func kindOf(text []byte) statement {
	m := statementPattern.FindSubmatchIndex(text)
	for i, s := range []statement{commits, begins, rollsBack, writes} {
		if m != nil && m[2+2*i] >= 0 {
			return s
		}
	}
	return reads
}

// frames takes a stream of PostgreSQL's messages apart, wherever the reads cut it.
type frames struct {
	startup bool // the client's first messages have no kind
	on      func(kind byte, body []byte)

	head []byte
	body []byte
	left int
}

// seen is how much of a message is looked at.
const seen = 4 << 10

func (f *frames) feed(b []byte) {
	for len(b) > 0 {
		if f.left == 0 {
			size := 5
			if f.startup {
				size = 4
			}
			n := min(size-len(f.head), len(b))
			f.head, b = append(f.head, b[:n]...), b[n:]
			if len(f.head) < size {
				return
			}
			f.left, f.body = int(binary.BigEndian.Uint32(f.head[size-4:]))-4, f.body[:0]
		}
		n := min(f.left, len(b))
		f.body = append(f.body, b[:min(n, max(0, seen-len(f.body)))]...)
		f.left -= n
		b = b[n:]
		if f.left > 0 {
			continue
		}
		if f.startup {
			// A request for encryption is answered by one byte and followed by the real thing.
			f.startup = len(f.body) == 4 && binary.BigEndian.Uint32(f.body)>>16 == 1234 && binary.BigEndian.Uint32(f.body)&0xffff > 5678
		} else {
			f.on(f.head[0], f.body)
		}
		f.head = f.head[:0]
	}
}
