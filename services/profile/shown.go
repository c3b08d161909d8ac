package profile

import "github.com/converge-dev/converge/pkg/facts"

// shown is what read sides show of profiles. A mail address is told, and not shown.
var shown = facts.Shown{Of: "users", Table: "profiles", ID: "user_id", Version: "version", Text: []string{"name", "bio"}}
