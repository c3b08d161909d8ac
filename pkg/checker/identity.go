package checker

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// cutOff is by how many bytes a server may seem to have written less than before after a crash: what it had flushed of
// a record that it never ended.
const cutOff = 8192

// identify asks the services which databases they answer from. One that is not what it was is a finding, and holds all
// repairs back: a wrong or an empty database, or an older copy, lacks what the others hold, and that would be paid back
// and released. Two services with one database are an error. If a service cannot be asked, nothing is repaired. A look
// at one order asks nothing: it says nothing of databases.
func (k *check) identify(ctx context.Context) error {
	if k.Order != uuid.Nil && !k.Repair {
		return nil
	}
	var before map[string]facts.Identity
	if k.cfg.Seen != nil {
		var err error
		if before, err = k.cfg.Seen(ctx); err != nil { // before the services are asked, or another check could have seen them later, and more written
			return err
		}
	}
	now, err := ask(ctx, k.peers, func(ctx context.Context, p *Peer) (*facts.Identity, error) { return p.identity(ctx) })
	if err != nil {
		k.hold("it cannot be asked which databases these are: " + err.Error()) // what is asked next tells whether the service is away
		return nil
	}
	for i, is := range now {
		for j, other := range now[:i] {
			if is != nil && other != nil && is.ID == other.ID {
				return &ServiceError{k.peers[i].name, fmt.Errorf("%s has the same database as %s, which is asked at %s: is one of the two addresses the other's?",
					k.peers[i].url, k.peers[j].name, k.peers[j].url)}
			}
		}
	}
	for i, is := range now {
		if is == nil {
			continue
		}
		if err := k.recognise(ctx, k.peers[i].name, *is, before); err != nil {
			return err
		}
	}
	return nil
}

// recognise compares a service's database with the one that it had. One that was never seen, or is accepted, is
// remembered.
func (k *check) recognise(ctx context.Context, service string, is facts.Identity, before map[string]facts.Identity) error {
	was, known := before[service]
	accept := k.Confirm && k.Order == uuid.Nil
	if what := changed(was, is); known && what != "" && !accept {
		k.others = append(k.others, Finding{
			Kind: DatabaseChanged, Subject: service, Repair: Repair{Action: actionOperator, State: None},
			Detail: what + ". Does it hold what it should? If it was restored, say so: converge restored " + service + ". Then accept it: converge check -confirm",
		})
		if !k.Confirm {
			k.hold("the database of " + service + " is not the one it was")
		}
		return nil
	}
	if k.cfg.Saw == nil {
		return nil
	}
	return k.cfg.Saw(ctx, service, is, accept)
}

// changed says in what a database is not the one that it was; empty: in nothing.
func changed(was, is facts.Identity) string {
	switch {
	case is.ID != was.ID:
		return fmt.Sprintf("another database answers: %s in place of %s. It is new, or a wrong address leads to it", is.ID, was.ID)
	case is.Epoch != was.Epoch:
		return fmt.Sprintf("somebody has said that the database was restored: its epoch is %d, and was %d", is.Epoch, was.Epoch)
	case is.Copy != was.Copy:
		return fmt.Sprintf("another copy of the database answers: %s in place of %s. It was restored, or a standby took over", is.Copy, was.Copy)
	case is.Written < was.Written-cutOff:
		return fmt.Sprintf("an older image of the database's server answers: it has written %d bytes, and had written %d before", is.Written, was.Written)
	}
	return ""
}

// identity returns which database the service answers from; nil: it is of a version that does not tell.
func (p *Peer) identity(ctx context.Context) (*facts.Identity, error) {
	var is facts.Identity
	err := p.call(ctx, http.MethodGet, "/facts/identity", nil, &is)
	if no, ok := errors.AsType[*Refusal](err); ok {
		if no.Status == http.StatusNotFound {
			return nil, nil //nolint:nilnil // there is no error, and no identity
		}
		return nil, &ServiceError{p.name, no}
	}
	if err != nil {
		return nil, err
	}
	return &is, nil
}
