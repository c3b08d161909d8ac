package payment

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

type (
	correctInput struct {
		Body struct {
			ID         uuid.UUID  `json:"correctionId" doc:"makes it safe to send the request again: the first answer comes back"`
			TransferID *uuid.UUID `json:"transferId,omitempty" doc:"the transfer that lacks an entry; without it the correction is a transfer of its own"`
			Debit      string     `json:"debit,omitempty" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"suspense.EUR" doc:"whose account is debited; with transferId only where it lacks a debit"`
			Credit     string     `json:"credit,omitempty" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada" doc:"whose account is credited; with transferId only where it lacks a credit"`
			Amount     int64      `json:"amount" minimum:"1" maximum:"1000000000000000" doc:"in minor units" example:"4200"`
			Currency   string     `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
			OrderID    *uuid.UUID `json:"orderId,omitempty" doc:"the order that it is about, without transferId; whether that is paid does not change"`
			Note       string     `json:"note" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" doc:"why" example:"the bank's statement says so"`
			By         string     `json:"by" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" doc:"who has decided it" example:"ada"`
			DryRun     bool       `json:"dryRun,omitempty" doc:"true: nothing is posted, and the answer is what would be"`
		}
	}
	correctionOutput struct {
		Status int
		Body   CorrectionRecord
	}
	correctionsInput struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"corrections in the page at most"`
		Cursor string `query:"cursor" doc:"nextCursor of the page before"`
	}
	correctionsOutput struct {
		Body struct {
			Corrections []CorrectionRecord `json:"corrections" nullable:"false" doc:"the newest first"`
			NextCursor  string             `json:"nextCursor,omitempty" doc:"cursor of the next page; none after the last one"`
		}
	}
)

// CorrectionRecord is a correction, as it was posted or would be.
type CorrectionRecord struct {
	ID         uuid.UUID  `json:"correctionId"`
	TransferID uuid.UUID  `json:"transferId" doc:"of its entries: its own, or that of the transfer that it completes"`
	Entries    []side     `json:"entries" nullable:"false" doc:"the entries that it adds"`
	Currency   string     `json:"currency" doc:"ISO 4217"`
	OrderID    *uuid.UUID `json:"orderId,omitempty"`
	Note       string     `json:"note" doc:"why"`
	By         string     `json:"by" doc:"who has decided it"`
	CreatedAt  time.Time  `json:"createdAt"`
}

func (c correction) record() CorrectionRecord {
	r := CorrectionRecord{ID: c.id, TransferID: c.transfer, Entries: c.sides(), Currency: c.currency, Note: c.note, By: c.by, CreatedAt: c.createdAt}
	if c.order != uuid.Nil {
		r.OrderID = &c.order
	}
	return r
}

// registerCorrections adds the operations of corrections to an API.
func (h *handlers) registerCorrections(api huma.API) {
	schema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[CorrectionRecord](), true, "")
	huma.Register(api, huma.Operation{
		OperationID: "correct-ledger", Method: http.MethodPost, Path: "/ledger/corrections", Summary: "Post what a person has decided", DefaultStatus: http.StatusCreated,
		Description: "Entries are never changed: a correction adds some. It moves an amount from one account to another, or adds to a transfer the entry that it lacks, on the account that is named; " +
			"suspense.EUR and its like, which may be below zero, are for what nobody knows yet. The same correctionId gets the first answer again. A refusal is a 409 of the type insufficient-balance, account-frozen " +
			"or currency-mismatch, or does-not-balance where the transfer lacks something else; it stores nothing, and the correction can be sent again.",
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{
			"200": {Description: "A dry run: what would be posted", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}},
			"201": {Description: "Posted"},
		},
	}, h.correct)
	huma.Register(api, huma.Operation{
		OperationID: "list-corrections", Method: http.MethodGet, Path: "/ledger/corrections", Summary: "List the ledger's corrections, newest first",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.corrections)
}

// asked is the correction that a request asks for, or a problem.
func (in *correctInput) asked() (correction, error) {
	b := in.Body
	c := correction{id: b.ID, transfer: b.ID, debit: b.Debit, credit: b.Credit, amount: b.Amount, currency: b.Currency, note: b.Note, by: b.By}
	if b.TransferID != nil {
		c.transfer = *b.TransferID
		switch {
		case !c.completes():
			return c, web.Invalid(web.Field("body.transferId", "expected another id than body.correctionId", c.id.String()))
		case b.Debit != "" && b.Credit != "":
			return c, web.Invalid(web.Field("body.credit", "expected none beside body.debit: of a transfer, name the side that it lacks", b.Credit))
		case b.Debit == "" && b.Credit == "":
			return c, web.Invalid(web.Field("body.credit", "expected it or body.debit: of a transfer, name the side that it lacks", b.Credit))
		case b.OrderID != nil:
			return c, web.Invalid(web.Field("body.orderId", "expected none: the transfer says its order", b.OrderID.String()))
		}
		return c, nil
	}
	switch {
	case b.Debit == "":
		return c, web.Invalid(web.Field("body.debit", "expected an account, unless body.transferId is given", b.Debit))
	case b.Credit == "":
		return c, web.Invalid(web.Field("body.credit", "expected an account, unless body.transferId is given", b.Credit))
	case b.Debit == b.Credit:
		return c, web.Invalid(web.Field("body.credit", "expected another account than body.debit", b.Credit))
	case b.OrderID != nil:
		c.order = *b.OrderID
	}
	return c, nil
}

func (h *handlers) correct(ctx context.Context, in *correctInput) (*correctionOutput, error) {
	asked, err := in.asked()
	if err != nil {
		return nil, err
	}
	done, err := h.bank.correct(ctx, h.db, asked, in.Body.DryRun)
	unknown, isUnknown := errors.AsType[unknownAccount](err)
	switch {
	case errors.Is(err, errIDReused):
		return nil, idReused("correctionId", asked.id)
	case errors.Is(err, errNoTransfer):
		return nil, web.NotFound("there are no entries of transfer %s", asked.transfer)
	case isUnknown && unknown.owner == asked.debit:
		return nil, noSuchAccount("body.debit", unknown)
	case isUnknown:
		return nil, noSuchAccount("body.credit", unknown)
	case err != nil:
		return nil, failure(ctx, err)
	}
	out := &correctionOutput{Status: http.StatusCreated, Body: done.record()}
	if in.Body.DryRun {
		out.Status = http.StatusOK
	}
	return out, nil
}

func (h *handlers) corrections(ctx context.Context, in *correctionsInput) (*correctionsOutput, error) {
	before, err := web.ParseCursor(in.Cursor, 0, func(n string) (int64, error) { return strconv.ParseInt(n, 10, 64) })
	if err != nil {
		return nil, err
	}
	all, older, err := listCorrections(ctx, h.db, before, in.Limit)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &correctionsOutput{}
	out.Body.Corrections = make([]CorrectionRecord, len(all))
	for i, c := range all {
		out.Body.Corrections[i] = c.record()
	}
	if older != 0 {
		out.Body.NextCursor = web.Cursor(strconv.FormatInt(older, 10))
	}
	return out, nil
}
