package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"pgregory.net/rapid"
)

// batch is a record batch to be written as a broker would keep it.
type batch struct {
	base       int64
	lastDelta  int32
	attributes protocol.Attributes
	producer   int64
	deltas     []int64 // of the records that compaction has left
	value      string
	abort      bool // of a control batch
}

const firstTime = 1_700_000_000_000

func (b batch) bytes(t testing.TB) []byte {
	t.Helper()
	var body []byte
	part := func(to []byte, p []byte) []byte { return append(binary.AppendVarint(to, int64(len(p))), p...) }
	for _, d := range b.deltas {
		rec := binary.AppendVarint(binary.AppendVarint([]byte{0}, d), d) // attributes, time, offset
		key, value := fmt.Appendf(nil, "k%d", b.base+d), []byte(b.value)
		if b.attributes.Control() {
			key, value = []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 0}
			if b.abort {
				key[3] = 0
			}
		}
		rec = part(part(rec, key), value)
		rec = binary.AppendVarint(rec, 1)
		rec = part(part(rec, []byte("h")), []byte("v"))
		body = part(body, rec)
	}
	if codec := b.attributes.Compression().Codec(); codec != nil {
		var buf bytes.Buffer
		w := codec.NewWriter(&buf)
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body = buf.Bytes()
	}
	be := binary.BigEndian
	rest := be.AppendUint16(nil, uint16(b.attributes))
	rest = be.AppendUint32(rest, uint32(b.lastDelta))
	rest = be.AppendUint64(rest, firstTime)
	rest = be.AppendUint64(rest, firstTime+1000)
	rest = be.AppendUint64(rest, uint64(b.producer))
	rest = be.AppendUint16(rest, 0)
	rest = be.AppendUint32(rest, 0)
	rest = be.AppendUint32(rest, uint32(len(b.deltas)))
	rest = append(rest, body...)
	out := be.AppendUint64(nil, uint64(b.base))
	out = be.AppendUint32(out, uint32(9+len(rest)))
	out = be.AppendUint32(out, 0)
	out = append(out, 2)
	out = be.AppendUint32(out, crc32.Checksum(rest, castagnoli))
	return append(out, rest...)
}

func batchesOf(t testing.TB, batches ...batch) (set []byte) {
	t.Helper()
	for _, b := range batches {
		set = append(set, b.bytes(t)...)
	}
	return set
}

func TestReadRecords(t *testing.T) {
	const tx, control = protocol.Transactional, protocol.Transactional | protocol.Control
	plain := func(base int64, deltas ...int64) batch {
		return batch{base: base, lastDelta: int32(deltas[len(deltas)-1]), producer: -1, deltas: deltas, value: "v"}
	}
	corrupt := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b
	}
	compressed := func(c compress.Compression) []byte {
		b := plain(0, 0, 1, 2)
		b.attributes, b.value = protocol.Attributes(c), strings.Repeat("v", 1000)
		return b.bytes(t)
	}
	one, two := plain(0, 0, 1, 2).bytes(t), plain(3, 0, 1).bytes(t)
	cases := map[string]struct {
		set     []byte
		aborted []fetch.ResponseTransaction
		from    int64
		offsets []int64
		next    int64
		err     string
	}{
		"nothing":                       {nil, nil, 7, nil, 7, ""},
		"batches":                       {append(bytes.Clone(one), two...), nil, 0, []int64{0, 1, 2, 3, 4}, 5, ""},
		"from the middle of a batch":    {append(bytes.Clone(one), two...), nil, 2, []int64{2, 3, 4}, 5, ""},
		"a tail that was compacted":     {batch{base: 10, lastDelta: 5, producer: -1, deltas: []int64{0, 2}}.bytes(t), nil, 10, []int64{10, 12}, 16, ""},
		"only the tail is asked for":    {batch{base: 10, lastDelta: 5, producer: -1, deltas: []int64{0, 2}}.bytes(t), nil, 13, nil, 16, ""},
		"a batch that is empty by now":  {batch{base: 10, lastDelta: 5, producer: 4}.bytes(t), nil, 10, nil, 16, ""},
		"a batch that is cut off":       {append(bytes.Clone(one), two[:len(two)-1]...), nil, 0, []int64{0, 1, 2}, 3, ""},
		"a first batch that is cut off": {one[:len(one)-1], nil, 0, nil, 0, ""},
		"less than a header":            {append(bytes.Clone(one), two[:5]...), nil, 0, []int64{0, 1, 2}, 3, ""},
		"a corrupt batch":               {corrupt(one), nil, 0, nil, 0, "corrupt batch"},
		"a corrupt batch after another": {append(bytes.Clone(one), corrupt(two)...), nil, 0, []int64{0, 1, 2}, 3, ""},
		"an unknown format":             {append(append(bytes.Clone(one[:16]), 3), one[17:]...), nil, 0, nil, 0, "format 3"},
		"gzip":                          {compressed(compress.Gzip), nil, 0, []int64{0, 1, 2}, 3, ""},
		"snappy":                        {compressed(compress.Snappy), nil, 0, []int64{0, 1, 2}, 3, ""},
		"lz4":                           {compressed(compress.Lz4), nil, 0, []int64{0, 1, 2}, 3, ""},
		"zstd":                          {compressed(compress.Zstd), nil, 0, []int64{0, 1, 2}, 3, ""},
		"an aborted transaction between committed ones": {
			batchesOf(t,
				batch{base: 0, producer: 7, attributes: tx, deltas: []int64{0}}, // committed
				batch{base: 1, producer: 8, attributes: tx, deltas: []int64{0}}, // aborted
				batch{base: 2, producer: 7, attributes: control, deltas: []int64{0}},
				batch{base: 3, producer: -1, deltas: []int64{0}},
				batch{base: 4, producer: 8, attributes: control, deltas: []int64{0}, abort: true},
				batch{base: 5, producer: 8, attributes: tx, deltas: []int64{0}}, // the next of the same producer, committed
				batch{base: 6, producer: 8, attributes: control, deltas: []int64{0}},
			), []fetch.ResponseTransaction{{ProducerID: 8, FirstOffset: 1}}, 0, []int64{0, 3, 5}, 7, "",
		},
		"two aborted at once, listed in any order": {
			batchesOf(t,
				batch{base: 0, producer: 8, attributes: tx, deltas: []int64{0}},
				batch{base: 1, producer: 9, attributes: tx, deltas: []int64{0}},
				batch{base: 2, producer: 9, attributes: control, deltas: []int64{0}, abort: true},
				batch{base: 3, producer: 8, attributes: control, deltas: []int64{0}, abort: true},
				batch{base: 4, producer: 9, attributes: tx, deltas: []int64{0}},
			), []fetch.ResponseTransaction{{ProducerID: 9, FirstOffset: 1}, {ProducerID: 8, FirstOffset: 0}}, 0, []int64{4}, 5, "",
		},
		"an aborted one that began before": {
			batchesOf(t,
				batch{base: 5, producer: 8, attributes: tx, deltas: []int64{0, 1}, lastDelta: 1},
				batch{base: 7, producer: 8, attributes: control, deltas: []int64{0}, abort: true},
			), []fetch.ResponseTransaction{{ProducerID: 8, FirstOffset: 2}}, 6, nil, 8, "",
		},
		"only markers": {
			batch{base: 5, producer: 8, attributes: control, deltas: []int64{0}}.bytes(t), nil, 5, nil, 6, "",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recs, next, _, err := readRecords(TopicPartition{"t", 3}, c.set, c.aborted, c.from)
			var offsets []int64
			for _, r := range recs {
				offsets = append(offsets, r.Offset)
			}
			if diff := cmp.Diff(c.offsets, offsets); diff != "" || next != c.next {
				t.Errorf("goes on at %d, want %d; offsets: %s", next, c.next, diff)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// What kafka-go writes comes back as it was, whatever it is, in the format of today and in that before.
func TestRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		version := rapid.SampledFrom([]int8{1, 2}).Draw(rt, "version")
		attributes := protocol.Attributes(0)
		if version == 2 {
			attributes = protocol.Attributes(rapid.SampledFrom([]compress.Compression{0, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd}).Draw(rt, "compression"))
		}
		part := rapid.OneOf(rapid.Just[[]byte](nil), rapid.SliceOfN(rapid.Byte(), 0, 200))
		want := make([]Record, rapid.IntRange(1, 10).Draw(rt, "records"))
		wire := make([]protocol.Record, len(want))
		for i := range want {
			want[i] = Record{
				Topic: "t", Partition: 3, Offset: int64(i), Headers: []Header{}, Time: time.UnixMilli(rapid.Int64Range(1, 1<<41).Draw(rt, "time")).UTC(),
				Key: part.Draw(rt, "key"), Value: part.Draw(rt, "value"),
			}
			for range rapid.IntRange(0, 3).Draw(rt, "headers") {
				if version == 2 {
					want[i].Headers = append(want[i].Headers, Header{Key: rapid.String().Draw(rt, "name"), Value: part.Draw(rt, "header")})
				}
			}
			wire[i] = wireRecord(&want[i])
		}
		var buf bytes.Buffer
		set := protocol.RecordSet{Version: version, Attributes: attributes, Records: protocol.NewRecordReader(wire...)}
		if _, err := set.WriteTo(&buf); err != nil {
			rt.Fatal(err)
		}
		got, next, _, err := readRecords(TopicPartition{"t", 3}, buf.Bytes()[4:], nil, 0)
		if err != nil || next != int64(len(want)) {
			rt.Fatalf("goes on at %d after %d records: %v", next, len(want), err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
	})
}

// The estimate of a batch is never less than the batch, and not much more.
func TestBatchSizeIsEstimated(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		recs := make([]Record, rapid.IntRange(1, 200).Draw(rt, "records"))
		wire := make([]protocol.Record, len(recs))
		estimate := batchRecordsAt
		for i := range recs {
			recs[i] = Record{
				Key: make([]byte, rapid.IntRange(0, 200).Draw(rt, "key")), Value: make([]byte, rapid.IntRange(0, 20_000).Draw(rt, "value")),
				Time: time.UnixMilli(rapid.Int64Range(1, 1<<42).Draw(rt, "time")),
			}
			for range rapid.IntRange(0, 3).Draw(rt, "headers") {
				recs[i].Headers = append(recs[i].Headers, Header{Key: rapid.String().Draw(rt, "name"), Value: make([]byte, 10)})
			}
			estimate += recordBytes(&recs[i], i)
			wire[i] = wireRecord(&recs[i])
		}
		var buf bytes.Buffer
		set := protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(wire...)}
		if _, err := set.WriteTo(&buf); err != nil {
			rt.Fatal(err)
		}
		if size := buf.Len() - 4; estimate < size || estimate > size+12*len(recs) {
			rt.Fatalf("%d records are estimated at %d bytes, and have %d", len(recs), estimate, size)
		}
	})
}

// Whatever comes over the wire is an error at worst.
func FuzzReadRecords(f *testing.F) {
	f.Add(batch{base: 10, lastDelta: 5, producer: -1, deltas: []int64{0, 2}}.bytes(f))
	f.Fuzz(func(t *testing.T, set []byte) {
		if len(set) > batchCRCAt+4 { // past the checksum
			length := batchPrefix + int64(int32(binary.BigEndian.Uint32(set[batchLengthAt:])))
			if length > batchAttributesAt && length <= int64(len(set)) {
				binary.BigEndian.PutUint32(set[batchCRCAt:], crc32.Checksum(set[batchAttributesAt:length], castagnoli))
			}
		}
		_, next, _, _ := readRecords(TopicPartition{"t", 3}, set, nil, 5)
		if next < 5 {
			t.Fatalf("goes on at %d, was at 5", next)
		}
	})
}
