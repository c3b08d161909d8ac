package payment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/web"
)

// The limits in the tags are the ones that the API describes and holds requests to.
type (
	paymentInput struct {
		OrderID uuid.UUID `path:"orderId"`
	}
	paymentOutput struct{ Body Record }

	openInput struct {
		Body struct {
			ID       string `json:"accountId" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada" doc:"a user's account has the user's id"`
			Currency string `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
		}
	}
	// AccountPath is exported because huma passes over what it embeds otherwise.
	AccountPath struct {
		ID string `path:"id" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada"`
	}
	// AccountQuery is an owner and, perhaps, a currency.
	AccountQuery struct {
		AccountPath
		Currency string `query:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217; without it the account is the one that was opened first"`
	}
	freezeInput struct {
		AccountPath
		Currency string `query:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"USD" doc:"only a user's further account in it; without it all of the owner's accounts"`
		Body     struct {
			Frozen bool `json:"frozen" doc:"true: the accounts refuse debits"`
		}
	}
	entriesInput struct {
		AccountQuery
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"entries in the page at most"`
		Cursor string `query:"cursor" doc:"nextCursor of the page before"`
	}
	transferInput struct {
		Body struct {
			ID       uuid.UUID `json:"transferId" doc:"makes it safe to send the request again: the first answer comes back"`
			From     string    `json:"from" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada"`
			To       string    `json:"to" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"bob"`
			Amount   int64     `json:"amount" minimum:"1" maximum:"1000000000000" doc:"in minor units" example:"4200"`
			Currency string    `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
		}
	}
	depositInput struct {
		Body struct {
			ID       uuid.UUID `json:"depositId" doc:"makes it safe to send the request again: the first answer comes back"`
			Account  string    `json:"accountId" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada"`
			Amount   int64     `json:"amount" minimum:"1" maximum:"1000000000000" doc:"in minor units" example:"4200"`
			Currency string    `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
		}
	}
	accountOutput struct {
		Status int
		Body   Account
	}
	accountsOutput struct {
		Body struct {
			Account
			Others []Account `json:"others,omitempty" doc:"the owner's accounts in other currencies; none where one is asked for"`
		}
	}
	entriesOutput struct {
		Body struct {
			Entries    []Posting `json:"entries" nullable:"false" doc:"the newest first"`
			NextCursor string    `json:"nextCursor,omitempty" doc:"cursor of the next page; none after the last one"`
		}
	}
	transferOutput struct {
		Body struct {
			ID        uuid.UUID `json:"transferId"`
			From      string    `json:"from"`
			To        string    `json:"to"`
			Amount    int64     `json:"amount"`
			Currency  string    `json:"currency"`
			CreatedAt time.Time `json:"createdAt"`
		}
	}
	depositOutput struct {
		Body struct {
			ID        uuid.UUID `json:"depositId"`
			Account   string    `json:"accountId"`
			Amount    int64     `json:"amount"`
			Currency  string    `json:"currency"`
			CreatedAt time.Time `json:"createdAt"`
		}
	}
)

// handlers answer the API's requests.
type handlers struct {
	db   *pgxpool.Pool
	bank bank
}

// register adds payment's operations to an API.
func (h *handlers) register(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "get-payment", Method: http.MethodGet, Path: "/payments/{orderId}", Summary: "Show the payment of an order",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, h.payment)
	accountSchema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Account](), true, "")
	huma.Register(api, huma.Operation{
		OperationID: "open-account", Method: http.MethodPost, Path: "/accounts", Summary: "Open an account", DefaultStatus: http.StatusCreated,
		Description: "It begins empty. A user has an account for each currency; none need be opened, for its first charge or deposit does. Opening it again changes nothing.",
		Errors:      []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{
			"200": {Description: "It was open", Content: map[string]*huma.MediaType{"application/json": {Schema: accountSchema}}},
			"201": {Description: "Opened"},
		},
	}, h.open)
	huma.Register(api, huma.Operation{
		OperationID: "get-account", Method: http.MethodGet, Path: "/accounts/{id}", Summary: "Look at an account",
		Description: "With a currency, the account in it; without, the account that was opened first, with those in other currencies, if there are any.",
		Errors:      []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, h.account)
	huma.Register(api, huma.Operation{
		OperationID: "list-entries", Method: http.MethodGet, Path: "/accounts/{id}/entries", Summary: "List an account's entries, newest first",
		Errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.entries)
	huma.Register(api, huma.Operation{
		OperationID: "freeze-account", Method: http.MethodPut, Path: "/accounts/{id}/frozen", Summary: "Freeze an owner's accounts, or thaw them",
		Description: "All of a user's accounts, those too that are opened later. They refuse debits: orders of a frozen user fail, and a frozen merchant pays nothing back until it is thawed. " +
			"With a currency, only the account in it, which must not be the one that was opened first: that one speaks for all. One that is frozen with all is thawed with all: else it is a 409 of the type " +
			"all-or-none. The answer is the account in the currency; without one, the account that was opened first.",
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable},
	}, h.freeze)
	huma.Register(api, huma.Operation{
		OperationID: "transfer", Method: http.MethodPost, Path: "/transfers", Summary: "Move money between two accounts", DefaultStatus: http.StatusCreated,
		Description: "Both accounts are those in the currency; where there is none, it is a 422. The same transferId gets the first answer again, a refusal too. " +
			"A refusal is a 409 of the type insufficient-balance or account-frozen, or currency-mismatch where an account of the system's own is in another currency.",
		Errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.transfer)
	huma.Register(api, huma.Operation{
		OperationID: "deposit", Method: http.MethodPost, Path: "/deposits", Summary: "Put money into an account, from outside", DefaultStatus: http.StatusCreated,
		Description: "Opens the account in the currency if there is none. The same depositId gets the first answer again, a refusal too.",
		Errors:      []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.deposit)
	h.registerCorrections(api)
}

func (h *handlers) payment(ctx context.Context, in *paymentInput) (*paymentOutput, error) {
	p, ok, err := findPayment(ctx, h.db, in.OrderID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, web.NotFound("order %s has no payment; if it is new, its event may be on its way", in.OrderID)
	}
	return &paymentOutput{Body: p}, nil
}

func (h *handlers) open(ctx context.Context, in *openInput) (*accountOutput, error) {
	id, currency := in.Body.ID, in.Body.Currency
	if of, internal := h.bank.internal(id); internal && of != currency {
		return nil, mismatch(fmt.Sprintf("account %s is in %s, not in %s", id, of, currency))
	}
	opened, err := h.bank.openAccount(ctx, h.db, accountKey{id, currency})
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	a, ok, err := findAccount(ctx, h.db, id, currency)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, noAccount(id, currency)
	case opened:
		return &accountOutput{Status: http.StatusCreated, Body: a}, nil
	}
	return &accountOutput{Status: http.StatusOK, Body: a}, nil
}

func mismatch(detail string) error {
	return web.Problem(http.StatusConflict, currencyMismatch, titles[currencyMismatch], detail)
}

func (h *handlers) account(ctx context.Context, in *AccountQuery) (*accountsOutput, error) {
	all, err := accountsOf(ctx, h.db, in.ID)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	a, ok := pick(all, in.Currency)
	if !ok {
		return nil, noAccount(in.ID, in.Currency)
	}
	out := &accountsOutput{}
	if out.Body.Account = a.Account; in.Currency == "" {
		for _, other := range all[1:] {
			out.Body.Others = append(out.Body.Others, other.Account)
		}
	}
	return out, nil
}

func noAccount(owner, currency string) error {
	return web.NotFound("%s", unknownAccount{owner, currency}.Error())
}

func (h *handlers) entries(ctx context.Context, in *entriesInput) (*entriesOutput, error) {
	before, err := web.ParseCursor(in.Cursor, math.MaxInt64, func(n string) (int64, error) { return strconv.ParseInt(n, 10, 64) })
	if err != nil {
		return nil, err
	}
	all, err := accountsOf(ctx, h.db, in.ID)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	a, ok := pick(all, in.Currency)
	if !ok {
		return nil, noAccount(in.ID, in.Currency)
	}
	entries, err := listEntries(ctx, h.db, a.id, before, in.Limit+1)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &entriesOutput{}
	if len(entries) > in.Limit {
		entries = entries[:in.Limit]
		out.Body.NextCursor = web.Cursor(strconv.FormatInt(entries[in.Limit-1].n, 10))
	}
	out.Body.Entries = entries
	return out, nil
}

func (h *handlers) freeze(ctx context.Context, in *freezeInput) (*accountOutput, error) {
	ok, err := freezeAccounts(ctx, h.db, in.ID, in.Currency, in.Body.Frozen)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	a, found, err := findAccount(ctx, h.db, in.ID, in.Currency)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !found:
		return nil, noAccount(in.ID, in.Currency)
	case !ok && a.Frozen && !in.Body.Frozen:
		return nil, web.Problem(http.StatusConflict, "all-or-none", "All or none",
			fmt.Sprintf("account %s in %s is frozen with all of %s's: thaw them all, without a currency", in.ID, in.Currency, in.ID))
	case !ok:
		return nil, web.Problem(http.StatusConflict, "all-or-none", "All or none",
			fmt.Sprintf("account %s in %s was opened first, and speaks for all of %s's: freeze or thaw them all, without a currency", in.ID, in.Currency, in.ID))
	}
	return &accountOutput{Status: http.StatusOK, Body: a}, nil
}

func (h *handlers) transfer(ctx context.Context, in *transferInput) (*transferOutput, error) {
	if in.Body.From == in.Body.To {
		return nil, web.Invalid(web.Field("body.to", "expected another account than body.from", in.Body.To))
	}
	if !checked(in.Body.From) { // its money is made as it leaves
		return nil, web.Invalid(web.Field("body.from", "expected an account that money does not come from; a deposit puts money in", in.Body.From))
	}
	done, err := h.move(ctx, "transferId", Transfer{
		ID: in.Body.ID, Kind: Move, From: in.Body.From, To: in.Body.To, Amount: in.Body.Amount, Currency: in.Body.Currency,
	})
	if err != nil {
		return nil, err
	}
	out := &transferOutput{}
	b := &out.Body
	b.ID, b.From, b.To, b.Amount, b.Currency, b.CreatedAt = done.ID, done.From, done.To, done.Amount, done.Currency, done.CreatedAt
	return out, nil
}

func (h *handlers) deposit(ctx context.Context, in *depositInput) (*depositOutput, error) {
	if !checked(in.Body.Account) {
		return nil, web.Invalid(web.Field("body.accountId", "expected an account that money does not come from", in.Body.Account))
	}
	done, err := h.move(ctx, "depositId", Transfer{
		ID: in.Body.ID, Kind: Deposit, From: h.bank.externalOf(in.Body.Currency), To: in.Body.Account, Amount: in.Body.Amount, Currency: in.Body.Currency,
	})
	if err != nil {
		return nil, err
	}
	out := &depositOutput{}
	b := &out.Body
	b.ID, b.Account, b.Amount, b.Currency, b.CreatedAt = done.ID, done.To, done.Amount, done.Currency, done.CreatedAt
	return out, nil
}

// titles are those of the problems that refusals are, by type.
var titles = map[string]string{
	insufficientBalance: "Insufficient balance",
	currencyMismatch:    "Currency mismatch",
	accountFrozen:       "Account frozen",
	paymentDeclined:     "Payment declined",
	unclear:             "Unclear",
	notUnclear:          "Not unclear",
	belowZero:           "Balance below zero",
	doesNotBalance:      "Does not balance",
}

// move makes a transfer, and a problem of whatever keeps it from being made. idField is what its id is called.
func (h *handlers) move(ctx context.Context, idField string, t Transfer) (settled, error) {
	done, err := h.bank.transfer(ctx, h.db, t)
	unknown, isUnknown := errors.AsType[unknownAccount](err)
	switch {
	case errors.Is(err, errIDReused):
		return settled{}, idReused(idField, t.ID)
	case isUnknown:
		field := "body.from"
		if unknown.owner == t.To {
			field = "body.to"
		}
		return settled{}, noSuchAccount(field, unknown)
	case err != nil:
		return settled{}, web.Fault(ctx, err)
	case done.Type != "":
		return settled{}, web.Problem(http.StatusConflict, done.Type, titles[done.Type], done.Reason)
	}
	return done, nil
}

// idReused is the problem that an id belongs to another transfer. idField is what it is called.
func idReused(idField string, id uuid.UUID) error {
	return web.Problem(http.StatusUnprocessableEntity, "transfer-id-reused", "Id reused", "the id belongs to another transfer; send this one with an id of its own",
		web.Field("body."+idField, "expected an id that was not used for another transfer", id.String()))
}

// noSuchAccount is the problem that a field names an account that there is not.
func noSuchAccount(field string, unknown unknownAccount) error {
	return web.Problem(http.StatusUnprocessableEntity, "unknown-account", "Unknown account", unknown.Error(),
		web.Field(field, "expected an account that exists in the currency", unknown.owner))
}
