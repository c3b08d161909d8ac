package sagatest_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// recorder is a test that others look at.
type recorder struct{ errs, logs []string }

func (*recorder) Helper()                     {}
func (r *recorder) Logf(f string, a ...any)   { r.logs = append(r.logs, fmt.Sprintf(f, a...)) }
func (r *recorder) Errorf(f string, a ...any) { r.errs = append(r.errs, fmt.Sprintf(f, a...)) }

// hold runs Golden, with or without -update.
func hold(t *testing.T, update bool, topics ...saga.AnyTopic) *recorder {
	t.Helper()
	set := func(on bool) {
		if err := flag.Set("update", fmt.Sprint(on)); err != nil {
			t.Fatal(err)
		}
	}
	set(update)
	defer set(false)
	r := &recorder{}
	sagatest.Golden(r, topics...)
	return r
}

type line struct {
	Product string `json:"product"`
	Units   int64  `json:"units" saga:"required"`
}

// parcel is a contract, with what Go types there are.
type parcel struct {
	ID     uuid.UUID         `json:"id"`
	User   string            `json:"user"`
	Lines  []line            `json:"lines"`
	Labels map[string]string `json:"labels"`
	At     time.Time         `json:"at"`
	To     *address          `json:"to"`
	Heavy  bool              `json:"heavy,omitempty"`
	Weight float64           `json:"weight"`
	Big    int64             `json:"big,string"`
	Raw    json.RawMessage   `json:"raw"`
	Photo  []byte            `json:"photo"`
	Within []parcel          `json:"within"`
	Note   string            `json:"-"`
	common
}

type address struct {
	City string `json:"city"`
	Zip  string `json:"zip"`
}

type common struct {
	Shop string `json:"shop"`
}

func (p parcel) Validate() error {
	var errs []error
	if p.User == "" {
		errs = append(errs, errors.New("user is missing"))
	}
	if len(p.Lines) == 0 {
		errs = append(errs, errors.New("lines is missing or empty"))
	}
	for i, l := range p.Lines {
		if l.Product == "" {
			errs = append(errs, fmt.Errorf("lines[%d].product is missing", i))
		}
	}
	if p.To != nil && p.To.City == "" {
		errs = append(errs, errors.New("to.city is missing"))
	}
	return errors.Join(errs...)
}

// The golden file is a JSON Schema of what is on the wire.
func TestGoldenFile(t *testing.T) {
	t.Chdir(t.TempDir())
	topic := saga.NewTopic[parcel]("parcel.packed")
	file := filepath.Join("testdata", "contracts", "parcel.packed.json")
	if r := hold(t, false, topic); len(r.errs) != 1 || !strings.Contains(r.errs[0], "parcel.packed has no golden file (") {
		t.Errorf("without a file: %q", r.errs)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was written without -update")
	}
	if r := hold(t, true, topic); len(r.errs)+len(r.logs) != 0 {
		t.Errorf("-update: %q", r)
	}
	if r := hold(t, false, topic); len(r.errs)+len(r.logs) != 0 {
		t.Errorf("after -update: %q", r)
	}
	var got struct {
		Title, Type string
		Required    []string
		Properties  map[string]struct {
			Type, Format string
			Required     []string
			Items        *struct {
				Type     string
				Required []string
			}
			AdditionalProperties *struct{ Type string }
		}
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"lines", "user"}; got.Title != "parcel.packed" || got.Type != "object" || !slices.Equal(got.Required, want) {
		t.Errorf("%s %s requires %v, want %v", got.Title, got.Type, got.Required, want)
	}
	types := map[string]string{}
	for name, p := range got.Properties {
		types[name] = strings.TrimSpace(p.Type + " " + p.Format)
	}
	for name, want := range map[string]string{
		"id": "string uuid", "user": "string", "lines": "array", "labels": "object", "at": "string date-time", "to": "object", "heavy": "boolean",
		"weight": "number", "big": "string integer", "raw": "", "photo": "string byte", "within": "array", "shop": "string",
	} {
		if got, ok := types[name]; !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
		delete(types, name)
	}
	if len(types) > 0 {
		t.Errorf("also %v", types)
	}
	if items := got.Properties["lines"].Items; items == nil || items.Type != "object" || !slices.Equal(items.Required, []string{"product", "units"}) {
		t.Errorf("a line is %+v", items)
	}
	if to := got.Properties["to"]; !slices.Equal(to.Required, []string{"city"}) {
		t.Errorf("an address is %+v", to)
	}
	if labels := got.Properties["labels"].AdditionalProperties; labels == nil || labels.Type != "string" {
		t.Errorf("a label is %+v", labels)
	}
}

// What the contract of a delivery was, and what a change makes of it.
type delivery struct {
	ID    string `json:"id" saga:"required"`
	Total int64  `json:"total"`
	Lines []line `json:"lines"`
}

// Every change that messages in the topic, or services that run, would not survive fails, and says what to do; what
// they survive does not.
func TestGoldenHoldsTheContract(t *testing.T) {
	t.Chdir(t.TempDir())
	if r := hold(t, true, saga.NewTopic[delivery]("delivered")); len(r.errs) != 0 {
		t.Fatal(r.errs)
	}
	type lineOf[T any] struct {
		Product string `json:"product"`
		Units   T      `json:"units" saga:"required"`
	}
	type gone struct {
		ID    string `json:"id" saga:"required"`
		Lines []line `json:"lines"`
	}
	type renamed struct {
		ID     string `json:"id" saga:"required"`
		Amount int64  `json:"amount"`
		Lines  []line `json:"lines"`
	}
	type retyped struct {
		ID    string `json:"id" saga:"required"`
		Total string `json:"total"`
		Lines []line `json:"lines"`
	}
	type fraction struct {
		ID    string  `json:"id" saga:"required"`
		Total float64 `json:"total"`
		Lines []line  `json:"lines"`
	}
	type inner struct {
		ID    string           `json:"id" saga:"required"`
		Total int64            `json:"total"`
		Lines []lineOf[string] `json:"lines"`
	}
	type single struct {
		ID    string `json:"id" saga:"required"`
		Total int64  `json:"total"`
		Lines line   `json:"lines"`
	}
	type required struct {
		ID    string `json:"id" saga:"required"`
		Total int64  `json:"total" saga:"required"`
		Lines []line `json:"lines"`
	}
	type addedRequired struct {
		delivery
		User string `json:"user" saga:"required"`
	}
	type added struct {
		delivery
		User string  `json:"user"`
		To   address `json:"to"`
	}
	type relaxed struct {
		ID    string `json:"id"`
		Total int64  `json:"total"`
		Lines []line `json:"lines"`
	}
	type reordered struct {
		Lines []struct {
			Units   int32  `json:"units" saga:"required"`
			Product string `json:"product"`
		} `json:"lines"`
		Total int    `json:"total"`
		ID    string `json:"id" saga:"required"`
	}
	for name, tt := range map[string]struct {
		topic saga.AnyTopic
		want  string // of the failure; empty: none
		log   bool
	}{
		"gone":           {saga.NewTopic[gone]("delivered"), "total is gone\n", false},
		"renamed":        {saga.NewTopic[renamed]("delivered"), "total is gone, or was renamed to amount\n", false},
		"retyped":        {saga.NewTopic[retyped]("delivered"), "total was integer and is string\n", false},
		"fraction":       {saga.NewTopic[fraction]("delivered"), "total was integer and is number\n", false},
		"inner":          {saga.NewTopic[inner]("delivered"), "lines[].units was integer and is string\n", false},
		"single":         {saga.NewTopic[single]("delivered"), "lines was array and is object\n", false},
		"required":       {saga.NewTopic[required]("delivered"), "total was optional and is required\n", false},
		"validated":      {saga.NewTopic[validated]("delivered"), "total was optional and is required\n", false},
		"added required": {saga.NewTopic[addedRequired]("delivered"), "user is new and required\n", false},
		"not an object":  {saga.NewTopic[[]delivery]("delivered"), "the value was object and is array\n", false},
		"added":          {saga.NewTopic[added]("delivered"), "", true},
		"relaxed":        {saga.NewTopic[relaxed]("delivered"), "", true},
		"reordered":      {saga.NewTopic[reordered]("delivered"), "", false},
		"as it was":      {saga.NewTopic[delivery]("delivered"), "", false},
	} {
		r := hold(t, false, tt.topic)
		if len(r.logs) > 0 != tt.log || (tt.log && !strings.Contains(r.logs[0], "write testdata/contracts/delivered.json with -update")) {
			t.Errorf("%s: logs %q", name, r.logs)
		}
		if tt.want == "" {
			if len(r.errs) != 0 {
				t.Errorf("%s: %q", name, r.errs)
			}
			continue
		}
		if len(r.errs) != 1 || !strings.Contains(r.errs[0], "\n  - "+tt.want) {
			t.Errorf("%s: %q, want %q", name, r.errs, tt.want)
			continue
		}
		for _, advice := range []string{
			"add an optional one beside it", "write a new type for version 2", `saga.NewTopic[New]("delivered", …, saga.Upcast(1, func(old `,
			"docs/evolve.md",
		} {
			if !strings.Contains(r.errs[0], advice) {
				t.Errorf("%s: %s\nwant %q in it", name, r.errs[0], advice)
			}
		}
	}
}

type validated delivery

func (v validated) Validate() error {
	if v.Total == 0 {
		return errors.New("total is missing")
	}
	return nil
}

// A new version has a file of its own, and the older ones stay what they were: they lie in the topic.
func TestGoldenOfVersions(t *testing.T) {
	t.Chdir(t.TempDir())
	type next struct {
		ID     string `json:"id" saga:"required"`
		Amount int64  `json:"amount"`
	}
	type changed struct {
		ID    string `json:"id" saga:"required"`
		Lines []line `json:"lines"`
	}
	hold(t, true, saga.NewTopic[delivery]("delivered"))
	two := saga.NewTopic[next]("delivered", saga.Upcast(1, func(d delivery) (next, error) { return next{d.ID, d.Total}, nil }))
	if r := hold(t, false, two); len(r.errs) != 1 || !strings.Contains(r.errs[0], "delivered.v2 has no golden file") {
		t.Errorf("a new version: %q", r.errs)
	}
	if r := hold(t, true, two); len(r.errs) != 0 {
		t.Error(r.errs)
	}
	if r := hold(t, false, two); len(r.errs)+len(r.logs) != 0 {
		t.Errorf("after -update: %q", r)
	}
	broken := saga.NewTopic[next]("delivered", saga.Upcast(1, func(d changed) (next, error) { return next{}, nil }))
	r := hold(t, false, broken)
	if len(r.errs) != 1 || !strings.Contains(r.errs[0], "total is gone") || !strings.Contains(r.errs[0], "what version 1 in the topic looks like") {
		t.Errorf("an old version that changed: %q", r.errs)
	}
}
