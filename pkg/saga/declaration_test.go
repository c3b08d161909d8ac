package saga_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/saga"
)

// A declaration says all that others must know of a service, and survives its way through JSON.
func TestDeclaration(t *testing.T) {
	t.Parallel()
	svc := saga.Service{
		Name:      "svc",
		Routes:    []saga.Route{saga.On(question, work, answer), saga.On(question, work).Named("mail")},
		Publishes: []saga.AnyTopic{question, question},
	}
	text, err := json.Marshal(svc.Declaration())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"service":"svc","routes":[{"topic":"question","group":"svc","deadLetters":"svc.dlq","emits":["answer"]},` +
		`{"topic":"question","group":"svc.mail","deadLetters":"svc.mail.dlq","emits":[]}],"publishes":["question"]}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("declaration (-want +got):\n%s", diff)
	}
	var read saga.Declaration
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(svc.Declaration(), read); diff != "" {
		t.Errorf("read from JSON (-want +got):\n%s", diff)
	}
	if empty, _ := json.Marshal(saga.Service{Name: "idle"}.Declaration()); string(empty) != `{"service":"idle","routes":[],"publishes":[]}` {
		t.Errorf("a service without a part declares %s", empty)
	}

	want = `flowchart LR
    svc[svc]
    svc -- answer --> answer_sink(( ))
    question_source(( )) -- question --> svc
`
	read.Publishes = nil
	if diff := cmp.Diff(want, saga.Draw(read)); diff != "" {
		t.Errorf("a topic from nowhere and one to nowhere (-want +got):\n%s", diff)
	}
	var names []string
	for _, spec := range saga.DeclaredTopics(2, read) {
		names = append(names, spec.Name)
	}
	if diff := cmp.Diff([]string{"answer", "question", "svc.dlq", "svc.mail.dlq"}, names); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
}
