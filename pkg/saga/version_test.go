package saga_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Three versions of what a payment event says: the amount gets a currency, and then the user a name of his own.
type (
	paidV1 struct {
		Amount int64 `json:"amount" saga:"required"`
	}
	paidV2 struct {
		Cents    int64  `json:"cents" saga:"required"`
		Currency string `json:"currency"`
	}
	paidV3 struct {
		Cents    int64  `json:"cents" saga:"required"`
		Currency string `json:"currency"`
		From     string `json:"from"`
	}
)

func (p paidV3) Validate() error {
	if p.Currency == "" || p.From == "" {
		return errors.New("currency or from is missing")
	}
	return nil
}

func paidV1to2(p paidV1) (paidV2, error) {
	switch p.Amount {
	case 13:
		return paidV2{}, errors.New("13 has no currency")
	case 14:
		panic("14")
	case 15:
		return paidV2{Cents: 15}, nil // which version 3 refuses
	}
	return paidV2{Cents: p.Amount, Currency: "EUR"}, nil
}

func paidV2to3(p paidV2) (paidV3, error) { return paidV3{p.Cents, p.Currency, "unknown"}, nil }

var (
	paid1 = saga.NewTopic[paidV1]("paid")
	paid2 = saga.NewTopic[paidV2]("paid", saga.Upcast(1, paidV1to2))
	paid3 = saga.NewTopic[paidV3]("paid", saga.Upcast(1, paidV1to2), saga.Upcast(2, paidV2to3))
	paid4 = saga.NewTopic[paidV3]("paid", saga.Upcast(2, paidV2to3)) // version 1 is not read any more
)

func record(value string, headers ...string) broker.Record {
	r := broker.Record{Topic: "paid", Key: []byte("k"), Value: []byte(value)}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, broker.Header{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

// An event says its version, and every later version of the service reads it.
func TestUpcastersChain(t *testing.T) {
	t.Parallel()
	one := sagatest.Record(t, saga.New(t.Context(), paid1, "k", paidV1{5}))
	two := sagatest.Record(t, saga.New(t.Context(), paid2, "k", paidV2{6, "USD"}))
	three := sagatest.Record(t, saga.New(t.Context(), paid3, "k", paidV3{7, "USD", "ada"}))
	for want, r := range map[string]broker.Record{"paid": one, "paid.v2": two, "paid.v3": three} {
		if got := r.Header("ce_type"); got != want {
			t.Errorf("ce_type %q, want %q", got, want)
		}
	}
	for _, tt := range []struct {
		r    broker.Record
		want paidV3
	}{
		{one, paidV3{5, "EUR", "unknown"}}, {two, paidV3{6, "USD", "unknown"}}, {three, paidV3{7, "USD", "ada"}},
		{record(`{"amount":8}`), paidV3{8, "EUR", "unknown"}},
		{record(`{"amount":8}`, "ce_type", "com.example.Paid"), paidV3{8, "EUR", "unknown"}},
		{record(`{"amount":8}`, "ce_type", "paid.v1"), paidV3{8, "EUR", "unknown"}},
		{record(`{"amount":8}`, "ce_type", "paid.vNext"), paidV3{8, "EUR", "unknown"}},
		{record(`{"amount":8}`, "ce_type", "paid.v"), paidV3{8, "EUR", "unknown"}},
		{record(`{"amount":8}`, "ce_type", "repaid.v2"), paidV3{8, "EUR", "unknown"}},
	} {
		if m, err := saga.Decode(paid3, tt.r); err != nil || m.Data != tt.want {
			t.Errorf("%s of type %q: %+v, %v, want %+v", tt.r.Value, tt.r.Header("ce_type"), m.Data, err, tt.want)
		}
	}
	for _, tt := range []struct {
		topic saga.Topic[paidV3]
		r     broker.Record
		want  string
	}{
		{paid3, record(`{}`), "version 1: invalid: amount is missing"},
		{paid3, record(`{"cents":1,"currency":"EUR","from":"ada"}`), "version 1: invalid: amount is missing"},
		{paid3, record(`{`, "ce_type", "paid.v2"), "version 2: decode"},
		{paid3, record(`{"amount":13}`), "upcast from version 1: 13 has no currency"},
		{paid3, record(`{"amount":14}`), "panicked"},
		{paid3, record(`{"amount":15}`), "upcast from version 1: invalid: currency or from is missing"},
		{paid3, record(`{}`, "ce_type", "paid.v0"),
			"unknown version: paid has version 0, and this service knows versions 1 to 3; give the topic an Upcast from version 0"},
		{paid3, record(`{}`, "ce_type", "paid.v4"), "unknown version: paid has version 4, and this service knows versions 1 to 3; upgrade"},
		{paid3, record(`{}`, "ce_type", "paid.v99999999999999999999"), "upgrade this service"},
		{paid4, record(`{"amount":1}`),
			"unknown version: paid has version 1, and this service knows versions 2 to 3; give the topic an Upcast from version 1"},
	} {
		if _, err := saga.Decode(tt.topic, tt.r); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s of type %q: %v, want %q", tt.r.Value, tt.r.Header("ce_type"), err, tt.want)
		}
	}
}

// Steps that do not follow each other are a mistake of the program, and said at once.
func TestUpcastersThatDoNotFit(t *testing.T) {
	t.Parallel()
	one, two := saga.Upcast(1, paidV1to2), saga.Upcast(2, paidV2to3)
	for want, steps := range map[string][]saga.Upcaster{
		"topic paid: Upcast from version 1 makes saga_test.paidV2, but version 2 is saga_test.paidV3": {one},
		"topic paid: Upcast from version 1 follows the one from version 2":                            {two, one},
		"topic paid: Upcast from version 3 follows the one from version 1":                            {one, saga.Upcast(3, paidV2to3)},
		"topic paid: Upcast from version 0: the first version is 1":                                   {saga.Upcast(0, paidV2to3)},
		"topic paid: Upcast from version 1 makes saga_test.paidV3, but version 2 is saga_test.paidV2": {saga.Upcast(1, paidV2to3), two},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
					t.Errorf("panic %q, want %q", got, want)
				}
			}()
			saga.NewTopic[paidV3]("paid", steps...)
		}()
	}
	var got []string
	for _, v := range paid3.Versions() {
		got = append(got, fmt.Sprintf("%d %s %s %v", v.Number, v.EventType, v.Type, v.Check([]byte(`{}`))))
	}
	want := []string{
		"1 paid saga_test.paidV1 invalid: amount is missing", "2 paid.v2 saga_test.paidV2 invalid: cents is missing",
		"3 paid.v3 saga_test.paidV3 invalid: currency or from is missing\ncents is missing",
	}
	if !slices.Equal(got, want) {
		t.Errorf("versions %q, want %q", got, want)
	}
	v := paid1.Versions()
	if len(v) != 1 || v[0].Type != reflect.TypeFor[paidV1]() || v[0].EventType != "paid" || v[0].Check([]byte(`{"amount":1}`)) != nil {
		t.Errorf("versions of a topic that has one: %+v", v)
	}
}

// A message of a version that the service does not know is no garbage: it waits in the dead letter topic, and is
// handled when it is redriven to a service that knows it.
func TestANewerVersionIsRedrivenAfterTheUpgrade(t *testing.T) {
	t.Parallel()
	db := database(t)
	var handled []paidV3
	before := saga.Service{Name: "svc", Routes: []saga.Route{
		saga.On(paid2, func(context.Context, pgx.Tx, saga.Msg[paidV2]) ([]saga.Out, error) { return nil, nil }),
	}}
	after := saga.Service{Name: "svc", Routes: []saga.Route{
		saga.On(paid3, func(ctx context.Context, _ pgx.Tx, m saga.Msg[paidV3]) ([]saga.Out, error) {
			saga.AfterCommit(ctx, func() { handled = append(handled, m.Data) })
			return nil, nil
		}),
	}}
	newer := sagatest.Record(t, saga.New(t.Context(), paid3, "k", paidV3{7, "USD", "ada"}))
	garbage := record(`{"n":`)
	newer.Offset, garbage.Offset = 1, 2
	letters := dead(t, sagatest.Deliver(t, db, before, newer, garbage))
	if len(letters) != 2 || letters[0].Attempts != 1 {
		t.Fatalf("dead letters %+v", letters)
	}
	const want = "unknown version: paid has version 3, and this service knows versions 1 to 2; upgrade this service, then redrive"
	if got := letters[0].Reason; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	if got := letters[1].Reason; strings.Contains(got, "unknown version") || !strings.Contains(got, "decode") {
		t.Errorf("garbage: %q", got)
	}
	for range 2 {
		back := letters[0].Redrive()
		back.Offset = 9
		if out := sagatest.Deliver(t, db, after, back); len(out) != 0 {
			t.Errorf("redriven, it left %+v", dead(t, out))
		}
	}
	if want := []paidV3{{7, "USD", "ada"}}; !slices.Equal(handled, want) {
		t.Errorf("handled %+v, want %+v", handled, want)
	}
}

// A record that says it is not JSON is not read as JSON, whatever its bytes look like; letter case and parameters do
// not matter.
func TestContentTypes(t *testing.T) {
	t.Parallel()
	for contentType, ok := range map[string]bool{
		"": true, "application/json": true, "Application/JSON": true, "application/json; charset=utf-8": true, "application/json;charset=UTF-8": true,
		" application/json ; x=y": true, "application/vnd.example.paid+json": true, "application/CloudEvents+JSON; charset=utf-8": true,
		"text/json": true, ";": true,
		"application/avro": false, "text/plain": false, "application/x-protobuf": false, "application/jsonx": false,
		"application/x-json-not": false, "json": false,
		"application/octet-stream": false, "application/xml; like=application/json": false, "\xff": false,
	} {
		r := record(`{"amount":1}`, "content-type", contentType)
		_, err := saga.Decode(paid1, r)
		if (err == nil) != ok || (err != nil && !strings.Contains(err.Error(), "is not JSON: send application/json")) {
			t.Errorf("%q: %v, want it accepted: %t", contentType, err, ok)
		}
	}
	enveloped := record(`{"specversion":"1.0","data":{"amount":1}}`, "content-type", "application/cloudevents+json")
	if _, err := saga.Decode(paid1, enveloped); err == nil || !strings.Contains(err.Error(), "structured mode is not unpacked") {
		t.Errorf("a CloudEvent in structured mode: %v", err)
	}
	db := database(t)
	svc := saga.Service{Name: "svc", Routes: []saga.Route{
		saga.On(paid1, func(context.Context, pgx.Tx, saga.Msg[paidV1]) ([]saga.Out, error) { return nil, nil }),
	}}
	letters := dead(t, sagatest.Deliver(t, db, svc, record(`{"amount":1}`, "content-type", "application/avro")))
	const want = `the content type "application/avro" is not JSON: send application/json, or no content-type header`
	if len(letters) != 1 || letters[0].Reason != want {
		t.Errorf("dead letters %+v", letters)
	}
	gone := record("", "content-type", "text/plain", "ce_type", "paid.v9")
	gone.Value, gone.Offset = nil, 3
	if out := sagatest.Deliver(t, db, svc, gone); len(out) != 0 {
		t.Errorf("a tombstone, which has no content: %+v", dead(t, out))
	}
}
