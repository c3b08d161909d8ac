package saga_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

type base struct {
	Common string `json:"common"`
}

type leaf struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

type tree struct {
	base
	ID       uuid.UUID       `json:"id"`
	At       time.Time       `json:"at"`
	Leaves   []leaf          `json:"leaves"`
	ByName   map[string]leaf `json:"byName"`
	Parent   *tree           `json:"parent"`
	Raw      json.RawMessage `json:"raw"`
	Plain    string
	Hidden   string `json:"-"`
	Anything any    `json:"anything"`
}

var trees = saga.NewTopic[tree]("trees")

func decodeTree(value string) error {
	_, err := saga.Decode(trees, broker.Record{Topic: "trees", Value: []byte(value)})
	return err
}

// What two readers of a message would understand differently is not understood at all.
func TestAmbiguousValues(t *testing.T) {
	t.Parallel()
	many := func(name string) string {
		var b strings.Builder
		for i := range 40 {
			b.WriteString(`"x` + strings.Repeat("y", i) + `":1,`)
		}
		return "{" + b.String() + name + "}"
	}
	for value, reason := range map[string]string{
		`{"common":"a"}`: "",
		`{"unknown":1,"leaves":[{"name":"a","more":{}}]}`: "",
		`{"byName":{"a":{},"A":{}}}`:                      "",
		`{"leaves":[],"parent":{"leaves":[]}}`:            "",
		`{"leaves":[{"name":"a"},{"name":"b"}]}`:          "",
		`{"Plain":"a","Hidden":1,"hidden":2}`:             "",
		`{"common":"😀","Plain":"\\\" \\u00e9"}`:           "",
		`{"raw":{"NAME":1,"Name":2},"anything":{"a":1}}`:  "",
		`null`: "",
		" { \"leaves\" :\n[ { \"count\" : 1 , \"name\" : \"a\" } ] } ": "",
		many(`"z":1`): "",

		"{\"common\":\"M\xfcller\"}":             "not UTF-8",
		`{"common":"\ud83d"}`:                    `\ud83d is half of a character`,
		`{"common":"\ud83dx"}`:                   `\ud83d is half of a character`,
		`{"common":"\ud83d\n"}`:                  `\ud83d is half of a character`,
		`{"common":"\ud83dA"}`:                   `\ud83d is half of a character`,
		`{"common":"a\ude00"}`:                   `\ude00 is half of a character`,
		`{"common":"a","common":"b"}`:            `"common" occurs twice`,
		`{"common":"a","\u0063ommon":"b"}`:       `"common" occurs twice`,
		`{"unknown":1,"unknown":1}`:              `"unknown" occurs twice`,
		`{"COMMON":"a"}`:                         `"COMMON" has another letter case than "common"`,
		`{"common":"a","Common":"b"}`:            `"Common" has another letter case`,
		`{"plain":"a"}`:                          `"plain" has another letter case than "Plain"`,
		`{"leaveſ":[]}`:                          `has another letter case than "leaves"`,
		`{"leaves":[{"name":"a"},{"NAME":"b"}]}`: `"NAME" has another`,
		`{"byName":{"a":{"Count":1}}}`:           `"Count" has another`,
		`{"byName":{"a":{},"a":{}}}`:             `"a" occurs twice`,
		`{"parent":{"parent":{"ID":null}}}`:      `"ID" has another`,
		`{"raw":{"a":[{"b":1,"b":2}]}}`:          `"b" occurs twice`,
		many(`"z":1,"x":2`):                      `"x" occurs twice`,
		many(`"z":1,"z":2`):                      `"z" occurs twice`,
	} {
		err := decodeTree(value)
		if (err == nil) != (reason == "") || (err != nil && !strings.Contains(err.Error(), reason)) {
			t.Errorf("%.200s: %v, want %q", value, err, reason)
		}
	}
}

type bill struct {
	Amount int64  `json:"amount" saga:"required"`
	Lines  []line `json:"lines"`
}

type line struct {
	Units int64 `json:"units" saga:"required"`
}

// Zero is an amount, and no amount is none.
func TestRequiredFields(t *testing.T) {
	t.Parallel()
	bills := saga.NewTopic[bill]("bills")
	for value, reason := range map[string]string{
		`{"amount":0}`: "", `{"lines":[{"units":0},{"units":1}],"amount":1}`: "",
		`{}`: "amount is missing", `{"amount":null}`: "amount is missing", `{"Amount":1}`: "letter case",
		`{"amount" : null , "lines":[]}`: "amount is missing", `{"amount":1,"lines":[{"units":1},{}]}`: "units is missing",
	} {
		_, err := saga.Decode(bills, broker.Record{Topic: "bills", Value: []byte(value)})
		if (err == nil) != (reason == "") || (err != nil && !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: %v, want %q", value, err, reason)
		}
	}
}

// Whatever encoding/json writes of a type is read back.
func TestWrittenValuesAreRead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		leaves := rapid.Custom(func(t *rapid.T) leaf { return leaf{rapid.String().Draw(t, "name"), rapid.Int().Draw(t, "count")} })
		want := tree{
			base: base{rapid.String().Draw(t, "common")}, Leaves: rapid.SliceOf(leaves).Draw(t, "leaves"),
			ByName: rapid.MapOf(rapid.String(), leaves).Draw(t, "byName"), Parent: &tree{Plain: rapid.String().Draw(t, "plain")},
			Anything: rapid.MapOf(rapid.String(), rapid.Float64()).Draw(t, "anything"),
		}
		value, err := json.Marshal(want)
		if err == nil {
			err = decodeTree(string(value))
		}
		if err != nil {
			t.Fatalf("%s: %v", value, err)
		}
	})
}

// FuzzFields: nothing that encoding/json takes makes the check panic.
func FuzzFields(f *testing.F) {
	for _, s := range []string{`{"common":"\ud83d😀"}`, `[{"a":"\\"}]`, `"\u0000"`, `{"":{"":[{},[]]}}`, `-1e9`, ` null `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if err := decodeTree(value); err != nil && strings.Contains(err.Error(), "panicked") {
			t.Error(err)
		}
	})
}
