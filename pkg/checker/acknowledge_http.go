package checker

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/web"
)

type (
	acknowledgeInput struct {
		Body struct {
			Kind    Kind      `json:"kind" pattern:"^[a-z][a-z-]{0,62}$" patternDescription:"a finding's kind, such as paid-wrong-amount" example:"paid-wrong-amount"`
			OrderID uuid.UUID `json:"orderId,omitzero" doc:"the order that it was found at"`
			Subject string    `json:"subject,omitempty" maxLength:"256" doc:"what else it was found at, as the finding has it: that of a user's further account has a tab before the currency"`
			Note    string    `json:"note" minLength:"1" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 500 characters without control characters" doc:"what is known of it" example:"the bank looks into it"`
			Until   time.Time `json:"until" doc:"until then it alarms nobody" example:"2126-11-25T00:00:00Z"`
			By      string    `json:"by,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of up to 100 characters without control characters" doc:"who says so"`
		}
	}
	acknowledgementOutput  struct{ Body Acknowledgement }
	acknowledgementsOutput struct {
		Body struct {
			Acknowledgements []Acknowledgement `json:"acknowledgements" nullable:"false" doc:"by kind, then by subject; with those whose time is over, for a week"`
		}
	}
	withdrawInput struct {
		ID uuid.UUID `path:"id"`
	}
	withdrawOutput struct {
		Body struct {
			Withdrawn bool `json:"withdrawn" doc:"false: there was none, or not any more"`
		}
	}
)

// latestUntil is the last moment that every database and every reader of JSON can tell.
var latestUntil = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func (h *handlers) registerAcknowledgements(api huma.API) {
	errs := []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable}
	huma.Register(api, huma.Operation{
		OperationID: "acknowledge", Method: http.MethodPost, Path: "/acknowledgements", Summary: "Say that somebody knows of a finding", Errors: errs,
		Description: "For what only a person can decide, and has not yet. The finding is shown with the note, and alarms nobody until then. There is one of a finding: " +
			"another takes its place, and the same one again changes nothing.",
	}, h.acknowledge)
	huma.Register(api, huma.Operation{
		OperationID: "list-acknowledgements", Method: http.MethodGet, Path: "/acknowledgements", Summary: "List what is acknowledged",
		Errors: []int{http.StatusServiceUnavailable},
	}, h.acknowledgements)
	huma.Register(api, huma.Operation{
		OperationID: "withdraw-acknowledgement", Method: http.MethodDelete, Path: "/acknowledgements/{id}", Summary: "Take an acknowledgement back",
		Description: "One that is not there is as good as taken back.", Errors: errs,
	}, h.withdraw)
}

func (h *handlers) acknowledge(ctx context.Context, in *acknowledgeInput) (*acknowledgementOutput, error) {
	b := in.Body
	subject := b.Subject
	switch {
	case b.OrderID != uuid.Nil && subject != "":
		return nil, web.Invalid(web.Field("body.subject", "expected no orderId beside it", subject))
	case b.OrderID != uuid.Nil:
		subject = b.OrderID.String()
	case strings.TrimSpace(subject) == "":
		return nil, web.Invalid(web.Field("body.subject", "expected what it was found at, or an orderId", subject))
	}
	if !b.Until.After(clock.Now()) || b.Until.After(latestUntil) {
		return nil, web.Invalid(web.Field("body.until", "expected a time to come, before the year 9999", b.Until.Format(time.RFC3339)))
	}
	if b.By == "" {
		b.By = "somebody"
	}
	a, err := h.records.acknowledge(ctx, Acknowledgement{Kind: b.Kind, Subject: subject, Note: b.Note, Until: b.Until.UTC().Truncate(time.Microsecond), By: b.By})
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	return &acknowledgementOutput{a}, nil
}

func (h *handlers) acknowledgements(ctx context.Context, _ *struct{}) (*acknowledgementsOutput, error) {
	all, err := h.records.acknowledged(ctx)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &acknowledgementsOutput{}
	out.Body.Acknowledgements = all
	return out, nil
}

func (h *handlers) withdraw(ctx context.Context, in *withdrawInput) (*withdrawOutput, error) {
	withdrawn, err := h.records.withdraw(ctx, in.ID)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &withdrawOutput{}
	out.Body.Withdrawn = withdrawn
	return out, nil
}
