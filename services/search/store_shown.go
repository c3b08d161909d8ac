package search

import "github.com/converge-dev/converge/pkg/facts"

// shown is what is shown of others' things, as they digest it themselves: of the generation that serves.
var shown = []facts.Shown{
	shownOf("products", Product, "title", "price", "currency"),
	shownOf("users", User, "title", "detail"),
}

func shownOf(set string, kind Kind, text ...string) facts.Shown {
	return facts.Shown{
		Of: set, Table: "documents", Where: "generation = (SELECT serving_generation()) AND kind = '" + string(kind) + "'", ID: "id", Version: "version", Text: text,
	}
}
