package checker

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// What somebody knows of is shown with its note, and counted apart, until its time is over or it is withdrawn.
func TestAcknowledged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := recordsIn(t)
	b.cfg.Acknowledged = r.acknowledged
	b.fill(hourAgo(1), hourAgo(2))
	b.exec(`UPDATE shipments SET amount = amount + 1`)
	m := newMetrics(prometheus.NewRegistry(), b.cfg)
	counts := func(want string) {
		t.Helper()
		report := b.check(Request{})
		m.checked(Request{}, report, nil, noon)
		var notes []string
		for _, f := range report.Findings {
			if f.Acknowledged != nil {
				notes = append(notes, f.Acknowledged.Note)
			}
		}
		open := testutil.ToFloat64(m.findings.WithLabelValues(scopeAll, string(shippedWrongAmount)))
		known := testutil.ToFloat64(m.known.WithLabelValues(scopeAll, string(shippedWrongAmount)))
		got, _ := json.Marshal([]any{open, known, notes})
		if string(got) != want {
			t.Errorf("open, acknowledged, notes: %s, want %s", got, want)
		}
	}
	give := func(note string, until time.Time) Acknowledgement {
		t.Helper()
		a, err := r.acknowledge(t.Context(), Acknowledgement{Kind: shippedWrongAmount, Subject: hourAgo(1).String(), Note: note, Until: until, By: "ada"})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	counts(`[2,0,null]`)
	first := give("the bank looks into it", noon.Add(time.Hour))
	if again := give("the bank looks into it", noon.Add(time.Hour)); again != first {
		t.Errorf("once more: %+v, want %+v", again, first)
	}
	counts(`[1,1,["the bank looks into it"]]`)
	give("it was over", noon)
	counts(`[2,0,null]`)
	second := give("it goes on", noon.Add(time.Minute))
	counts(`[1,1,["it goes on"]]`)
	if second.ID != first.ID {
		t.Errorf("two acknowledgements of one finding: %s and %s", first.ID, second.ID)
	}
	for _, want := range []bool{true, false} {
		if withdrawn, err := r.withdraw(t.Context(), first.ID); err != nil || withdrawn != want {
			t.Fatal(withdrawn, err)
		}
		counts(`[2,0,null]`)
	}
}

func TestAcknowledgementsAPI(t *testing.T) {
	t.Parallel()
	server := web.New(web.Config{Service: "checker"})
	(&handlers{records: recordsIn(t)}).register(server.API)
	ask := func(method, path, body string, status int, says string) string {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if w.Code != status || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s %s %s: %d %s, want %d and %s", method, path, body, w.Code, w.Body, status, says)
		}
		var got Acknowledgement
		_ = json.Unmarshal(w.Body.Bytes(), &got)
		return got.ID.String()
	}
	ask(http.MethodGet, "/acknowledgements", "", 200, `"acknowledgements":[]`)
	for body, says := range map[string]string{
		`{"kind":"stock-mismatch","note":"n","until":"2126-01-01T00:00:00Z"}`:                                                                "body.subject",
		`{"kind":"stock-mismatch","subject":" ","note":"n","until":"2126-01-01T00:00:00Z"}`:                                                  "body.subject",
		`{"kind":"stock-mismatch","subject":"p","orderId":"01980d2e-0000-7000-8000-000000000001","note":"n","until":"2126-01-01T00:00:00Z"}`: "body.subject",
		`{"kind":"stock-mismatch","subject":"p","note":"n","until":"2016-01-01T00:00:00Z"}`:                                                  "body.until",
		`{"kind":"stock-mismatch","subject":"p","note":"n"}`:                                                                                 "body",
		`{"kind":"Stock","subject":"p","note":"n","until":"2126-01-01T00:00:00Z"}`:                                                           "body.kind",
		`{"kind":"stock-mismatch","subject":"p","note":"","until":"2126-01-01T00:00:00Z"}`:                                                   "body.note",
	} {
		ask(http.MethodPost, "/acknowledgements", body, 422, says)
	}
	id := ask(http.MethodPost, "/acknowledgements", `{"kind":"stock-mismatch","subject":"p/1","note":"n","until":"2126-01-01T00:00:00Z"}`, 200, `"by":"somebody"`)
	ask(http.MethodPost, "/acknowledgements", `{"kind":"paid-wrong-amount","orderId":"01980d2e-0000-7000-8000-00000000000a","note":"n","until":"2126-01-01T00:00:00Z"}`,
		200, `"subject":"01980d2e-0000-7000-8000-00000000000a"`)
	ask(http.MethodGet, "/acknowledgements", "", 200, `"subject":"p/1"`)
	ask(http.MethodDelete, "/acknowledgements/"+id, "", 200, `"withdrawn":true`)
	ask(http.MethodDelete, "/acknowledgements/"+id, "", 200, `"withdrawn":false`)
	ask(http.MethodDelete, "/acknowledgements/x", "", 422, "path.id")
}

// Whatever text a finding's subject is, it can be acknowledged and taken back: of a user's further account it has a
// tab.
func TestAcknowledgeAnySubject(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := recordsIn(t)
	b.cfg.Acknowledged = r.acknowledged
	server := web.New(web.Config{Service: "checker"})
	(&handlers{records: r}).register(server.API)
	subjects := []string{"ada\tUSD", `ada\tUSD`, "ada in USD", "line\r\nbreak", "\x1b[31m", "a\u0085\u202e", " \u00a0x"}
	for _, subject := range subjects {
		b.rules[shipping] = append(b.rules[shipping], facts.Breach{Kind: string(parcelMismatch), Subject: subject, Detail: "planted"})
	}
	for _, subject := range subjects {
		body, err := json.Marshal(map[string]any{"kind": parcelMismatch, "subject": subject, "note": "known", "until": "2126-01-01T00:00:00Z"})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(method, path string, body []byte) (a Acknowledgement) {
			t.Helper()
			req := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			server.ServeHTTP(w, req)
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
				t.Fatalf("%s of %q: %d %s %v", method, subject, w.Code, w.Body, err)
			}
			return a
		}
		knows := func(want ...string) {
			t.Helper()
			var known []string
			for _, f := range b.check(Request{}).Findings {
				if f.Acknowledged != nil {
					known = append(known, f.Subject)
				}
			}
			if !slices.Equal(known, want) {
				t.Errorf("acknowledged are %q, want %q", known, want)
			}
		}
		a := ask(http.MethodPost, "/acknowledgements", body)
		knows(subject)
		ask(http.MethodDelete, "/acknowledgements/"+a.ID.String(), nil)
		knows()
	}
}
