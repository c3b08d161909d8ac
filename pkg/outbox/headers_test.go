package outbox

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/broker"
)

func sameHeader(a, b broker.Header) bool {
	return a.Key == b.Key && string(a.Value) == string(b.Value) && (a.Value == nil) == (b.Value == nil)
}

// Whatever the headers are, they come back.
func TestHeadersComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []broker.Header
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			want = append(want, broker.Header{Key: string(rapid.OneOf(rapid.Map(rapid.String(), func(s string) []byte { return []byte(s) }), rapid.SliceOf(rapid.Byte())).Draw(t, "key")), Value: rapid.OneOf(
				rapid.Just([]byte(nil)), rapid.SliceOf(rapid.Byte()), rapid.Map(rapid.StringMatching(`["\\\\,\\[\\]{}a-z]*`), func(s string) []byte { return []byte(s) }),
			).Draw(t, "value")})
		}
		got, err := decodeHeaders(encodeHeaders(want))
		if err != nil || !slices.EqualFunc(got, want, sameHeader) {
			t.Fatalf("%q came back as %q, %v", want, got, err)
		}
	})
}

// The fast way must agree with the thorough one, and take what services write.
func TestPlainHeaders(t *testing.T) {
	usual := encodeHeaders([]broker.Header{{Key: "ce_id", Value: []byte("1")}, {Key: "ce_time", Value: []byte("2026-11-23T20:33:33Z")}, {Key: "empty", Value: []byte{}}})
	if hs, ok := plainHeaders(usual); !ok || len(hs) != 3 || string(hs[1].Value) != "2026-11-23T20:33:33Z" {
		t.Errorf("%s was read as %q, %v", usual, hs, ok)
	}
	for _, odd := range []string{`[]`, `null`, ``, `[["a"]]`, `[["a","b","c"]]`, `[["a","b"]`, `["a","b"]`, `[["a", "b"]]`, `[["a",{"base64":"AA=="}]]`, `[["a","\\""]]`} {
		if hs, ok := plainHeaders(odd); ok {
			t.Errorf("%s was taken for plain: %q", odd, hs)
		}
	}
}

func BenchmarkDecodeHeaders(b *testing.B) {
	var hs []broker.Header
	for _, k := range []string{"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "content-type", "traceparent", "ce_correlationid", "ce_causationid"} {
		hs = append(hs, broker.Header{Key: k, Value: []byte("01a20a33-49db-715d-adc3-afbc390f19b8")})
	}
	s := encodeHeaders(hs)
	for b.Loop() {
		if _, err := decodeHeaders(s); err != nil {
			b.Fatal(err)
		}
	}
}
