package broker

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// kafka-go's own type of a fetch response decodes the records itself. It hides a batch's last offset, without which
// nobody can pass a batch whose tail was compacted away, and fails a whole response for one corrupt batch. This one
// keeps each partition's bytes as they are, for [readRecords]. It takes the place of kafka-go's in the process:
// kafka.Client.Fetch cannot be used beside it.
func init() { protocol.Register(&fetch.Request{}, &fetchResponse{}) }

type fetchResponse struct {
	ThrottleTimeMs int32                `kafka:"min=v1,max=v11"`
	ErrorCode      int16                `kafka:"min=v7,max=v11"`
	SessionID      int32                `kafka:"min=v7,max=v11"`
	Topics         []fetchResponseTopic `kafka:"min=v0,max=v11"`
}

func (*fetchResponse) ApiKey() protocol.ApiKey { return protocol.Fetch }

type fetchResponseTopic struct {
	Topic      string                   `kafka:"min=v0,max=v11"`
	Partitions []fetchResponsePartition `kafka:"min=v0,max=v11"`
}

type fetchResponsePartition struct {
	Partition            int32                       `kafka:"min=v0,max=v11"`
	ErrorCode            int16                       `kafka:"min=v0,max=v11"`
	HighWatermark        int64                       `kafka:"min=v0,max=v11"`
	LastStableOffset     int64                       `kafka:"min=v4,max=v11"`
	LogStartOffset       int64                       `kafka:"min=v5,max=v11"`
	AbortedTransactions  []fetch.ResponseTransaction `kafka:"min=v4,max=v11"`
	PreferredReadReplica int32                       `kafka:"min=v11,max=v11"`
	RecordSet            recordSet                   `kafka:"min=v0,max=v11"`
}

// recordSet is the batches of one partition as they came.
type recordSet struct{ batches []byte }

// ReadFrom reads the set's size and the set. It has no size where there are no records.
func (s *recordSet) ReadFrom(r io.Reader) (int64, error) {
	var size [4]byte
	if n, err := io.ReadFull(r, size[:]); err != nil {
		return int64(n), err
	}
	s.batches = make([]byte, max(0, int32(binary.BigEndian.Uint32(size[:]))))
	n, err := io.ReadFull(r, s.batches)
	return int64(len(size) + n), err
}

// Isolation levels. readCommitted makes the broker hold back what open transactions have written, and name the aborted
// ones.
const (
	readUncommitted int8 = 0
	readCommitted   int8 = 1
)

// The layout of a record batch, of which a message of the older formats shares the beginning.
const (
	batchLengthAt     = 8
	batchEpochAt      = 12
	batchMagicAt      = 16
	batchCRCAt        = 17
	batchAttributesAt = 21
	batchLastDeltaAt  = 23
	batchFirstTimeAt  = 27
	batchMaxTimeAt    = 35
	batchProducerAt   = 43
	batchCountAt      = 57
	batchRecordsAt    = 61

	batchPrefix = 12 // what the length does not count

	logAppendTime protocol.Attributes = 1 << 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readRecords copies the records at or after from out of a response, and returns the offset at which the partition goes
// on, and where the leader epochs begin in between. It passes without a record what nobody is to handle: records before
// from, which come because brokers send whole batches, markers of transactions, and what an aborted transaction has
// written. A batch moves the offset behind its last one, even where compaction has deleted that record.
//
// A batch that the size limit has cut off ends the set: it comes whole next time. A corrupt one is an error if it is
// the first; otherwise it is next time.
func readRecords(tp TopicPartition, set []byte, aborted []fetch.ResponseTransaction, from int64) ([]Record, int64, epochs, error) {
	var out []Record
	var led epochs
	next := from
	aborts := newAborts(aborted)
	for len(set) > batchMagicAt {
		length := batchPrefix + int64(int32(binary.BigEndian.Uint32(set[batchLengthAt:])))
		if length > int64(len(set)) {
			break
		}
		last, records, err := readBatch(set, length, aborts)
		if err != nil {
			if next > from {
				break
			}
			return nil, from, nil, fmt.Errorf("read records of %s/%d at %d: %w", tp.Topic, tp.Partition, next, err)
		}
		for _, r := range records {
			if r.Offset >= from {
				r.Topic, r.Partition = tp.Topic, tp.Partition
				out = append(out, r)
			}
		}
		if last >= from && set[batchMagicAt] == 2 {
			led.add(epochOffset{max(from, int64(binary.BigEndian.Uint64(set))), int32(binary.BigEndian.Uint32(set[batchEpochAt:]))})
		}
		next = max(next, last+1)
		set = set[length:]
	}
	return out, next, led, nil
}

// readBatch decodes the batch of that length that set begins with, and tells its last offset.
func readBatch(set []byte, length int64, aborts *aborts) (last int64, records []Record, err error) {
	if length <= batchMagicAt {
		return 0, nil, fmt.Errorf("a batch cannot have %d bytes", length)
	}
	b := set[:length]
	switch magic := b[batchMagicAt]; magic {
	case 0, 1:
		return readMessage(b)
	case 2:
	default:
		return 0, nil, fmt.Errorf("record format %d is not known", magic)
	}
	if len(b) < batchRecordsAt {
		return 0, nil, fmt.Errorf("a batch cannot have %d bytes", length)
	}
	if want, sum := binary.BigEndian.Uint32(b[batchCRCAt:]), crc32.Checksum(b[batchAttributesAt:], castagnoli); sum != want {
		return 0, nil, fmt.Errorf("corrupt batch: checksum %08x, want %08x", sum, want)
	}
	base := int64(binary.BigEndian.Uint64(b))
	last = base + int64(int32(binary.BigEndian.Uint32(b[batchLastDeltaAt:])))
	attributes := protocol.Attributes(binary.BigEndian.Uint16(b[batchAttributesAt:]))
	body, err := decompress(attributes, b[batchRecordsAt:])
	if err != nil {
		return 0, nil, err
	}
	if aborts.skip(b, attributes, last, body) {
		return last, nil, nil
	}
	records, err = decodeRecords(b, attributes, base, body)
	return last, records, err
}

func decompress(attributes protocol.Attributes, p []byte) ([]byte, error) {
	compression := attributes.Compression()
	if compression == 0 {
		return p, nil
	}
	codec := compression.Codec()
	if codec == nil {
		return nil, fmt.Errorf("compression %d is not known", compression)
	}
	r := codec.NewReader(bytes.NewReader(p))
	p, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("decompress %s: %w", compression, err)
	}
	return p, nil
}

func decodeRecords(b []byte, attributes protocol.Attributes, base int64, body []byte) ([]Record, error) {
	count := int(int32(binary.BigEndian.Uint32(b[batchCountAt:])))
	firstTime := int64(binary.BigEndian.Uint64(b[batchFirstTimeAt:]))
	maxTime := int64(binary.BigEndian.Uint64(b[batchMaxTimeAt:]))
	if count < 0 || count > len(body) { // a record has more than a byte
		return nil, fmt.Errorf("a batch of %d bytes cannot have %d records", len(body), count)
	}
	records := make([]Record, 0, count)
	in := cursor{p: body}
	for range count {
		rec := cursor{p: bytes.Clone(in.take(in.varint()))} // the record's own: it may live longer than the response
		rec.take(1)                                         // attributes, of which there are none
		at := firstTime + rec.varint()
		r := Record{Offset: base + rec.varint(), Key: rec.bytes(), Value: rec.bytes()}
		if attributes&logAppendTime != 0 {
			at = maxTime
		}
		r.Time = time.UnixMilli(at).UTC()
		headers := rec.varint()
		if headers < 0 || headers > int64(len(rec.p)) {
			rec.bad, headers = true, 0
		}
		r.Headers = make([]Header, headers)
		for i := range r.Headers {
			r.Headers[i] = Header{Key: string(rec.bytes()), Value: rec.bytes()}
		}
		if in.bad || rec.bad {
			return nil, fmt.Errorf("malformed record after offset %d", base+int64(len(records))-1)
		}
		records = append(records, r)
	}
	return records, nil
}

// cursor reads the parts of a record. What does not fit sets bad, and reads as nothing.
type cursor struct {
	p   []byte
	bad bool
}

func (c *cursor) take(n int64) []byte {
	if n < 0 || n > int64(len(c.p)) {
		c.p, c.bad = nil, true
		return nil
	}
	out := c.p[:n:n]
	c.p = c.p[n:]
	return out
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.p)
	if n <= 0 {
		c.p, c.bad = nil, true
		return 0
	}
	c.p = c.p[n:]
	return v
}

func (c *cursor) bytes() []byte {
	n := c.varint()
	if n == -1 {
		return nil
	}
	return c.take(n)
}

// readMessage leaves a message of the formats before Kafka 0.11 to kafka-go. Compressed, it holds others, and has the
// last one's offset.
func readMessage(b []byte) (last int64, records []Record, err error) {
	var set protocol.RecordSet
	sized := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	if _, err := set.ReadFrom(bytes.NewBuffer(append(sized, b...))); err != nil {
		return 0, nil, err
	}
	last = int64(binary.BigEndian.Uint64(b))
	if set.Records == nil {
		return 0, nil, errors.New("malformed message")
	}
	for {
		rec, err := set.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return last, records, nil
		}
		if err != nil {
			return 0, nil, err
		}
		key, keyErr := readBytes(rec.Key)
		value, valueErr := readBytes(rec.Value)
		if err := errors.Join(keyErr, valueErr); err != nil {
			return 0, nil, err
		}
		records = append(records, Record{Offset: rec.Offset, Key: key, Value: value, Headers: []Header{}, Time: rec.Time.UTC()})
	}
}

func readBytes(b protocol.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	p, err := protocol.ReadAll(b)
	return p, errors.Join(err, b.Close())
}

// aborts follows the aborted transactions through the batches of a response, as the Java client does. A transaction is
// its producer's, from its first offset to the producer's next marker.
type aborts struct {
	ahead []fetch.ResponseTransaction // not reached yet, by first offset
	open  map[int64]bool              // by producer: reached, and its marker not
}

func newAborts(list []fetch.ResponseTransaction) *aborts {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b fetch.ResponseTransaction) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	return &aborts{ahead: list, open: map[int64]bool{}}
}

// skip tells whether nobody is to handle the batch. Batches must come in order.
func (a *aborts) skip(b []byte, attributes protocol.Attributes, last int64, body []byte) bool {
	for len(a.ahead) > 0 && a.ahead[0].FirstOffset <= last {
		a.open[a.ahead[0].ProducerID] = true
		a.ahead = a.ahead[1:]
	}
	producer := int64(binary.BigEndian.Uint64(b[batchProducerAt:]))
	if attributes.Control() {
		if isAbort(body) {
			delete(a.open, producer)
		}
		return true
	}
	return attributes.Transactional() && a.open[producer]
}

// isAbort tells whether a control batch's record ends a transaction as aborted. Its key is a version and a type, of 16
// bits each.
func isAbort(body []byte) bool {
	in := cursor{p: body}
	rec := cursor{p: in.take(in.varint())}
	rec.take(1)
	rec.varint()
	rec.varint()
	key := rec.bytes()
	return len(key) >= 4 && binary.BigEndian.Uint16(key[2:]) == 0
}
