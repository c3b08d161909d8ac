package readside

import "github.com/converge-dev/converge/pkg/app"

// Start makes a service's read side one that can be rebuilt, over its API and after what an earlier process left half
// built, and returns how fresh it is. It belongs into the service's Setup.
func Start(side Side, rt *app.Runtime) *Freshness {
	r := &Rebuilder{Side: side, DB: rt.Pool, Broker: rt.Broker, Log: rt.Log, Go: rt.Go}
	r.Register(rt.Web.API)
	rt.Go(r.Recover)
	return NewFreshness(side, rt.Broker)
}
