package inventory

import "github.com/converge-dev/converge/pkg/facts"

// catalogue is what read sides show of products, as product.updated tells it. Whether one is in stock is left out: who
// buys changes it, and each time it turns the product has another version, which is compared.
var catalogue = facts.Shown{Of: "products", Table: "products", ID: "id", Version: "version", Text: []string{"name", "price", "currency"}}
