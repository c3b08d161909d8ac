package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/converge-dev/converge/lab/bench/plan"
)

// Write writes the JSON, and the tables to their file and to out. The JSON is read back: whoever reads it next must
// find what was measured.
func (r *Report) Write(opts plan.Options, out io.Writer) error {
	var text bytes.Buffer
	r.print(&text)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{opts.JSON: append(b, '\n'), opts.Markdown: text.Bytes()} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return err
	}
	return r.readBack(opts.JSON)
}

func (r *Report) readBack(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var read Report
	if err := json.Unmarshal(b, &read); err != nil {
		return fmt.Errorf("read %s back: %w", path, err)
	}
	if len(read.Runs) != len(r.Runs) {
		return fmt.Errorf("%s holds %d of %d runs", path, len(read.Runs), len(r.Runs))
	}
	for i, run := range r.Runs {
		if len(read.Runs[i].Results) != len(run.Results) {
			return fmt.Errorf("%s: %s has %d of %d results", path, run.name(), len(read.Runs[i].Results), len(run.Results))
		}
		for j, res := range run.Results {
			if got := read.Runs[i].Results[j]; got.Scenario != res.Scenario || got.Orders != res.Orders || got.Orders == 0 && got.Scenario != string(plan.Idle) {
				return fmt.Errorf("%s: %s %s has %d orders; %d were measured", path, run.name(), res.Scenario, got.Orders, res.Orders)
			}
		}
	}
	return nil
}
