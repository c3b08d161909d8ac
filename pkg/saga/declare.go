package saga

import (
	"context"
	"fmt"
	"slices"
)

type declarationKey struct{}

// Declare returns a context in which an event is written only if svc declares its topic, among its Publishes or what
// its routes emit: [Publish] refuses another one, and one that [New] makes is refused by [Publish], [Queue] and
// [Encode]. Its topic would not be created, and the event would wait in the outbox for ever. app.Run declares its
// service to requests and background work.
func Declare(ctx context.Context, svc Service) context.Context {
	return context.WithValue(ctx, declarationKey{}, svc)
}

// undeclared says that the service of ctx, if there is one, does not declare the topic.
func undeclared(ctx context.Context, topic string) error {
	svc, ok := ctx.Value(declarationKey{}).(Service)
	if !ok || svc.declares(topic) {
		return nil
	}
	return fmt.Errorf("%s does not declare the topic, which nobody would create; add it to Publishes of its saga.Service", svc.Name)
}

func (s Service) declares(topic string) bool {
	return slices.ContainsFunc(s.Publishes, func(t AnyTopic) bool { return t.Name() == topic }) ||
		slices.ContainsFunc(s.Routes, func(r Route) bool { return slices.Contains(r.emits, topic) })
}
