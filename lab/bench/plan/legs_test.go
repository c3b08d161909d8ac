package plan

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLegs(t *testing.T) {
	t.Parallel()
	names := func(change func(*Options)) (out []string) {
		o := Defaults()
		change(&o)
		if err := Choose(&o, "", "", 0); err != nil {
			t.Fatal(err)
		}
		for _, l := range o.Legs() {
			if l.Instances < 1 || len(l.Scenarios) == 0 && l.Mode != SQLFloor || l.Expected(&o) < time.Second {
				t.Errorf("%+v cannot be run", l)
			}
			out = append(out, l.String())
		}
		return out
	}
	base := []string{"converge", "usual", "floor"}
	stored := []string{"converge with 10 orders stored before", "converge with 20 orders stored before"}
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   []string
	}{
		{"defaults", func(*Options) {}, base},
		{"one value", func(o *Options) { o.Stored, o.Instances = []int{10}, []int{2} }, base},
		{"a curve alone", func(o *Options) { o.Stored = []int{10, 20} }, stored},
		{"full", func(o *Options) { o.Full, o.Stored, o.Instances = true, []int{10, 20}, []int{1} }, append(base, stored...)},
	} {
		if diff := cmp.Diff(tc.want, names(tc.change)); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
	if got := names(func(o *Options) { o.Full = true }); len(got) != 3+3+3 {
		t.Errorf("full runs %q", got)
	}
}

func TestCurveOfChosenScenarios(t *testing.T) {
	t.Parallel()
	o := Defaults()
	o.Instances = []int{1, 2}
	if err := Choose(&o, "", "open:7:1s", 0); err != nil {
		t.Fatal(err)
	}
	if legs := o.Legs(); len(legs) != 2 || len(legs[1].Scenarios) != 1 || legs[1].Scenarios[0].String() != "open:7" {
		t.Errorf("legs %+v; want open:7 twice", legs)
	}
}
