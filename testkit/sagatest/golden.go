package sagatest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/saga"
)

// goldenDir is where Golden keeps its files, in the directory of the test's package.
const goldenDir = "testdata/contracts"

// Golden shares -update with a package that had it before, such as another library of golden files.
func init() {
	if flag.Lookup("update") == nil {
		flag.Bool("update", false, "write the golden files of contracts anew")
	}
}

func updating() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// TB is what [Golden] needs of a *testing.T.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Golden holds the contract of each topic against its golden file, testdata/contracts/<ce_type>.json, a JSON Schema:
// the fields of its values, their JSON types, and which are required. Each version that the topic knows by
// [saga.Upcast] has a file of its own.
//
// It fails when a field goes missing, is renamed, changes its type or becomes required: messages that lie in the topic,
// and services that were not upgraded, have it as it was. Its message says what to do instead. A new optional field is
// accepted, and so is one that is not required any more. -update writes the files anew: for a new topic or version,
// after a field was added, or to break a contract that nobody uses yet. The flag is this package's: a test that imports
// it declares none of that name.
//
// A field is required if it has the tag `saga:"required"`, or if Validate refuses a value without any fields with an
// error that begins with the field's name (joined errors count each, a list's item is "items[0].quantity"). Limits of
// values are code, and not part of the file.
func Golden(t TB, topics ...saga.AnyTopic) {
	t.Helper()
	for _, topic := range topics {
		for _, v := range topic.Versions() {
			golden(t, topic, v)
		}
	}
}

func golden(t TB, topic saga.AnyTopic, v saga.Version) {
	t.Helper()
	file := filepath.Join(goldenDir, v.EventType+".json")
	now := describe(v)
	text, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		t.Errorf("%s: %v", v.EventType, err)
		return
	}
	text = append(text, '\n')
	if updating() {
		if err := writeFile(file, text); err != nil {
			t.Errorf("%s: %v", v.EventType, err)
		}
		return
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("%s has no golden file (%v). If it is new, write it with -update and commit it", v.EventType, err)
		return
	}
	was := &schema{}
	if err := json.Unmarshal(kept, was); err != nil {
		t.Errorf("%s: %s: %v. Take it back from version control", v.EventType, file, err)
		return
	}
	breaks := compare("", was, now)
	if len(breaks) > 0 {
		t.Errorf("%s (%s) breaks its contract, which %s has:\n  - %s\n%s",
			v.EventType, v.Type, file, strings.Join(breaks, "\n  - "), instead(topic, v))
		return
	}
	if !bytes.Equal(kept, text) {
		t.Logf("%s has grown: write %s with -update, so that it is held to what is new, too", v.EventType, file)
	}
}

func instead(topic saga.AnyTopic, v saga.Version) string {
	const always = `Messages that lie in the topic and services that run now have it as it was. Instead:
  - leave the field as it is and add an optional one beside it; or
`
	versions := topic.Versions()
	if newest := versions[len(versions)-1].Number; v.Number < newest {
		return always + fmt.Sprintf("  - leave %s as it is: it is what version %d in the topic looks like. Its Upcast may do with it what it likes.",
			v.Type, v.Number)
	}
	return always + fmt.Sprintf(`  - leave %s as it is, write a new type for version %d, and declare how one becomes the other:
    saga.NewTopic[New](%q, …, saga.Upcast(%d, func(old %s) (New, error) { … })). Consumers are upgraded before producers.
See docs/evolve.md. Only a contract that nobody uses yet may be written anew with -update.`,
		v.Type, v.Number+1, topic.Name(), v.Number, v.Type)
}

func writeFile(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// compare lists what of was does not hold of now any more, by the path of the field.
func compare(path string, was, now *schema) (breaks []string) {
	if was.Type != now.Type || was.Format != now.Format {
		return []string{fmt.Sprintf("%s was %s and is %s", cmp.Or(path, "the value"), was, now)}
	}
	if was.Items != nil && now.Items != nil {
		breaks = append(breaks, compare(path+"[]", was.Items, now.Items)...)
	}
	if was.Values != nil && now.Values != nil {
		breaks = append(breaks, compare(path+"{}", was.Values, now.Values)...)
	}
	if path != "" {
		path += "."
	}
	added := newFields(was, now)
	for _, name := range slices.Sorted(maps.Keys(was.Properties)) {
		old, next := was.Properties[name], now.Properties[name]
		switch {
		case next != nil:
			breaks = append(breaks, compare(path+name, old, next)...)
			if now.requires(name) && !was.requires(name) {
				breaks = append(breaks, path+name+" was optional and is required")
			}
		default:
			text := path + name + " is gone"
			if i := slices.IndexFunc(added, func(n string) bool { return len(compare("", old, now.Properties[n])) == 0 }); i >= 0 {
				text = fmt.Sprintf("%s%s is gone, or was renamed to %s", path, name, added[i])
			}
			breaks = append(breaks, text)
		}
	}
	for _, name := range added {
		if now.requires(name) {
			breaks = append(breaks, path+name+" is new and required")
		}
	}
	return breaks
}

// newFields are the names that now has and was has not, sorted.
func newFields(was, now *schema) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(now.Properties)), func(name string) bool { return was.Properties[name] != nil })
}
