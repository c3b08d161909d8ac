package saga

import (
	"fmt"
	"strings"
)

// maxReason bounds what is kept of an error's text: people read it, and it must fit a header.
const maxReason = 4 << 10

// reason is an error's text as UTF-8, cut to maxReason bytes.
func reason(err error) string {
	text := err.Error()
	if len(text) <= maxReason {
		return strings.ToValidUTF8(text, "?")
	}
	const rest = " … (%d bytes more)"
	kept := maxReason - len(rest) - 20
	return strings.ToValidUTF8(text[:kept], "") + fmt.Sprintf(rest, len(text)-kept)
}
