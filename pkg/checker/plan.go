package checker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// Command is what a service offers to put its own row of a thing right: a POST that answers with what is held then
// ([facts.Reply]). It is sent with the status that the checker has seen as "seen", NONE of nothing; a service that
// finds another one answers with [facts.Changed]. One that finds the wanted state changes nothing, so that twice is
// as good as once.
type Command struct {
	Service string
	Path    string                      // {id} stands for the thing's id: "/shipments/{id}/stop"
	Body    func(h Held) map[string]any // what else to send; nil: nothing
}

// name is what a report calls the command.
func (c Command) name() string { return path.Base(c.Path) }

// Plan is what puts a thing right, whatever number of flaws it has.
type Plan struct {
	Action string // the steps, for people: "reserve, charge"; "operator": only a person can decide; "wait": it passes by itself
	Advice string // to the person whom it is left to

	// Do carries it out. It says what came of it ([Outcome]), with what is held then in After, and whether all
	// services answered: when several things in a row met a service that does not, the rest is left to the next
	// check. nil: it is not for the checker to do.
	Do func(ctx context.Context, j Job) (r Repair, answered bool)

	// First keeps services that are recounted last ([Service.RecountLast]) waiting until this is done: they would
	// count wrongly.
	First bool
}

// Job is a thing that a plan is carried out for.
type Job struct {
	ID uuid.UUID
	By string // who asks, for the record

	peers []*Peer
}

// Peer is a service, to send commands to. It panics on a name that was not declared.
func (j Job) Peer(service string) *Peer { return peerOf(j.peers, service) }

func peerOf(peers []*Peer, service string) *Peer {
	return peers[slices.IndexFunc(peers, func(p *Peer) bool { return p.name == service })]
}

// Status is a fact's; of nothing it is NONE. It is what a command says was seen.
func Status(f *facts.Fact) string {
	if f == nil {
		return facts.None
	}
	return f.Status
}

// Outcome is what became of a repair whose step ended with an error, or none. A refusal is REFUSED, unless it says
// that the checker has seen what is no longer so, or that it asked for nonsense: that is FAILED, as is what nobody
// answered, and the next check looks again.
func Outcome(step string, err error) (state State, detail string) {
	no, refused := errors.AsType[*Refusal](err)
	switch {
	case err == nil:
		return Done, ""
	case !refused:
		return Failed, err.Error()
	case no.OfType(facts.TypeChanged):
		return Failed, "changed meanwhile, the next check looks again: " + no.Error()
	case no.Status != http.StatusConflict:
		return Failed, fmt.Sprintf("%s: %d: %s", step, no.Status, no)
	}
	return Refused, no.Error()
}

// planFor makes the plan for a thing with flaws: the commands that the rules name, in their order. If one of the
// flaws has none, a person decides about the thing.
func (c Config) planFor(id uuid.UUID, h Held, flaws []Flaw) Plan {
	switch {
	case len(flaws) == 0:
		return Plan{}
	case c.Plan != nil:
		return c.Plan(id, h, flaws)
	}
	var commands []Command
	var names []string
	for _, f := range flaws {
		switch {
		case f.repair.Path == "":
			return Plan{Action: actionOperator}
		case !slices.ContainsFunc(commands, f.repair.same):
			commands, names = append(commands, f.repair), append(names, f.repair.name())
		}
	}
	plan := Plan{Action: strings.Join(names, ", ")}
	plan.Do = func(ctx context.Context, j Job) (r Repair, answered bool) {
		r = Repair{Action: plan.Action}
		held, err := h, error(nil)
		for _, command := range commands {
			if held, err = command.send(ctx, j, held); err != nil {
				r.State, r.Detail = Outcome(command.name(), err)
				break
			}
			r.State = Done
		}
		r.After = &held
		_, refused := errors.AsType[*Refusal](err)
		return r, err == nil || refused
	}
	return plan
}

func (c Command) same(o Command) bool { return c.Service == o.Service && c.Path == o.Path }

// send gives the command, and returns what is held then.
func (c Command) send(ctx context.Context, j Job, held Held) (Held, error) {
	body := map[string]any{}
	if c.Body != nil {
		body = c.Body(held)
	}
	body["seen"] = Status(held.Of(c.Service))
	f, err := j.Peer(c.Service).Command(ctx, strings.ReplaceAll(c.Path, "{id}", url.PathEscape(j.ID.String())), body)
	if err != nil {
		return held, err
	}
	return held.with(c.Service, f), nil
}
