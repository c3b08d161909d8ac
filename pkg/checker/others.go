package checker

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// Actions of repairs, beside the steps of plans.
const (
	actionOperator = "operator" // for a person
	actionRecount  = "recount"  // count anew what the service counts along
	actionRedrive  = "redrive"  // put dead letters back where they came from
)

// audit has each service look for what breaks its own rules. One that cannot be asked does not keep the others from it;
// the first error is returned.
func (k *check) audit(ctx context.Context) (first error) {
	errs := make([]error, len(k.peers))
	answers, _ := ask(ctx, k.peers, func(ctx context.Context, p *Peer) (found []facts.Breach, _ error) {
		found, errs[slices.Index(k.peers, p)] = p.audit(ctx, k.Full)
		return found, nil
	})
	for i, breaches := range answers {
		if err := k.note(AuditOf(k.peers[i].name), errs[i]); err != nil {
			first = cmp.Or(first, err)
		}
		for _, b := range breaches {
			k.others = append(k.others, k.cfg.breached(b))
		}
	}
	k.brakeAudits()
	return first
}

// recountAll has the services put right what breaks their own rules: those that do so last, or the others.
func (k *check) recountAll(ctx context.Context, last bool) error {
	for _, s := range k.cfg.Services {
		if s.RecountLast == last {
			if err := k.recountOf(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// recountOf has a service put right what breaks its own rules.
func (k *check) recountOf(ctx context.Context, s Service) error {
	if k.held() {
		return nil
	}
	if err := k.breaches(ctx, s); err != nil {
		return err
	}
	for _, f := range k.others {
		if s.recount(f.Kind) != "" {
			k.cfg.Log.InfoContext(ctx, "recounted", "kind", f.Kind, "subject", f.subject(), "state", f.Repair.State, "detail", f.Repair.Detail, "was", f.Detail, "by", k.By)
		}
	}
	return ctx.Err()
}

// breached is what a service found with itself. What no command puts right is for an operator.
func (c Config) breached(b facts.Breach) Finding {
	f := Finding{Kind: Kind(b.Kind), Subject: b.Subject, Detail: b.Detail, Repair: Repair{Action: actionOperator, State: None}}
	switch {
	case f.Subject == "":
		f.Subject = `""` // a row has lost its name: no command reaches it
	case slices.ContainsFunc(c.Services, func(s Service) bool { return s.recount(f.Kind) != "" }):
		f.Repair = Repair{Action: actionRecount, State: Planned}
	}
	if id, err := uuid.Parse(b.Subject); err == nil && slices.ContainsFunc(c.Services, func(s Service) bool { return s.audited(f.Kind).OfThing }) {
		f.OrderID, f.Subject = id, ""
	}
	return f
}

// Letter is a message that a service could not handle.
type Letter struct {
	Topic     string // where it lies
	Partition int
	Offset    int64
	Key       string
	Reason    string
	Redriven  bool // it was put back where it came from before, and died again
}

// letters reports dead letters by topic and has those redriven that never were.
func (k *check) letters(ctx context.Context) error {
	all, err := k.cfg.Letters(ctx)
	if err != nil {
		return fmt.Errorf("look for dead letters: %w", err)
	}
	byTopic := map[string][]Letter{}
	var topics []string
	for _, l := range all {
		if byTopic[l.Topic] == nil {
			topics = append(topics, l.Topic)
		}
		byTopic[l.Topic] = append(byTopic[l.Topic], l)
	}
	for _, topic := range topics {
		f, err := k.dead(ctx, topic, byTopic[topic])
		if err != nil {
			return err
		}
		k.others = append(k.others, f)
	}
	return ctx.Err()
}

func (k *check) dead(ctx context.Context, topic string, letters []Letter) (Finding, error) {
	fresh := letters
	if i := slices.IndexFunc(letters, func(l Letter) bool { return l.Redriven }); i >= 0 {
		fresh = letters[:i] // those behind it wait with it, or nobody would know which were redriven
	}
	fresh = fresh[:min(len(fresh), k.cfg.MaxRepairs)]
	again := 0
	for _, l := range letters {
		if l.Redriven {
			again++
		}
	}
	f := Finding{
		Kind: DeadLetters, Subject: topic, Repair: Repair{Action: actionOperator, State: None},
		Detail: fmt.Sprintf("%d dead letters, %d of which died again when they were redriven; the first one's key is %q: %s",
			len(letters), again, letters[0].Key, letters[0].Reason),
	}
	if len(fresh) == 0 || k.cfg.Redrive == nil {
		return f, nil
	}
	f.Repair = Repair{Action: actionRedrive, State: Planned}
	if k.held() {
		return f, nil
	}
	end, err := k.begin(ctx, f)
	if err != nil {
		return f, err
	}
	f.Repair.State, f.Repair.Detail = Done, fmt.Sprintf("%d were redriven", len(fresh))
	if err := k.cfg.Redrive(ctx, fresh); err != nil {
		f.Repair.State, f.Repair.Detail = Failed, err.Error()
	}
	end(f.Repair, nil)
	k.cfg.Log.InfoContext(ctx, "dead letters redriven", "topic", topic, "state", f.Repair.State, "detail", f.Repair.Detail, "by", k.By)
	return f, nil
}
