package checker

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// audited is what was declared of a kind; the zero value: nothing.
func (s Service) audited(kind Kind) Audited {
	if i := slices.IndexFunc(s.Audits, func(a Audited) bool { return a.Kind == kind }); i >= 0 {
		return s.Audits[i]
	}
	return Audited{}
}

// recount is the command by which the service puts right findings of a kind; empty: there is none.
func (s Service) recount(kind Kind) string { return s.audited(kind).Recount }

// breaches has a service put right what broke its own rules, in the order in which it declares them: some must be
// right before others can be. The service itself refuses to count anew what goes by what is not right yet.
func (k *check) breaches(ctx context.Context, s Service) error {
	for _, audited := range s.Audits {
		for i := range k.others {
			f := &k.others[i]
			switch {
			case f.Kind != audited.Kind || audited.Recount == "" || f.Repair.State != Planned:
			case k.left == 0:
				f.Repair.Detail = "not yet: one check makes only so many repairs"
			default:
				end, err := k.begin(ctx, *f)
				if err != nil {
					return err
				}
				var after json.RawMessage
				f.Repair, after = k.recount(ctx, s.Name, strings.ReplaceAll(audited.Recount, "{subject}", url.PathEscape(f.subject())))
				end(f.Repair, after)
				k.left--
			}
		}
	}
	return nil
}

// recount returns also what the service answered: what it has counted.
func (k *check) recount(ctx context.Context, service, path string) (out Repair, after json.RawMessage) {
	out = Repair{Action: actionRecount, State: Done}
	err := peerOf(k.peers, service).call(ctx, http.MethodPost, path, struct{}{}, &after)
	if no, ok := errors.AsType[*Refusal](err); ok && no.Status == http.StatusConflict {
		out.State, out.Detail = Refused, no.Error()
	} else if err != nil {
		out.State, out.Detail = Failed, err.Error()
	}
	return out, after
}
