package web

// Condition is what a writer demands of the resource that it is about to replace: what If-Match and If-None-Match say (RFC 9110, section 13.1).
type Condition struct {
	Named  bool  // the writer says what it replaces
	Match  ETags // there is one with one of these ETags
	Except ETags // there is none with one of these; Any: there is none at all
}

// ParseCondition reads the two headers. ok is false where one of them cannot be read, or both together can never be met.
func ParseCondition(ifMatch, ifNoneMatch string) (c Condition, ok bool) {
	if ifMatch != "" {
		c.Named = true
		if c.Match, ok = ParseETags(ifMatch); !ok {
			return c, false
		}
	}
	if ifNoneMatch != "" {
		if c.Except, ok = ParseETags(ifNoneMatch); !ok {
			return c, false
		}
	}
	return c, !c.Named || !c.Except.Any
}
