package web

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Condition is what a writer demands of the resource that it is about to replace: what If-Match and If-None-Match say
// (RFC 9110, section 13.1).
type Condition struct {
	Named  bool  // the writer says what it replaces
	Match  ETags // there is one with one of these ETags
	Except ETags // there is none with one of these; Any: there is none at all
}

// ParseCondition reads the two headers. It is a problem if one of them cannot be read, or both together can never be
// met.
func ParseCondition(ifMatch, ifNoneMatch string) (c Condition, err error) {
	ok := true
	if ifMatch != "" {
		c.Named = true
		c.Match, ok = ParseETags(ifMatch)
	}
	if ok && ifNoneMatch != "" {
		c.Except, ok = ParseETags(ifNoneMatch)
	}
	if !ok || c.Named && c.Except.Any {
		return c, Invalid(Field("header.If-None-Match", "expected no If-Match beside *", ifNoneMatch))
	}
	return c, nil
}

// PreconditionRequired is the answer to a writer who does not say what is to be replaced.
func PreconditionRequired(detail string) *huma.ErrorModel {
	return Problem(http.StatusPreconditionRequired, "precondition-required", "Precondition required", detail, Field("header.If-Match", "expected the ETag of a GET", nil))
}

// VersionConflict is the answer to a writer whose condition does not hold.
func VersionConflict(detail string) *huma.ErrorModel {
	return Problem(http.StatusPreconditionFailed, "version-conflict", "Another version", detail+"; read it, and decide again")
}
