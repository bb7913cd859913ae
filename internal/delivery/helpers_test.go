package delivery_test

import (
	"encoding/json"

	"falaj/internal/kernel/policy"
)

func jsonInto(b []byte, v any) error { return json.Unmarshal(b, v) }

func res(project string) policy.Resource {
	return policy.Resource{Kind: "Endpoint", ID: "delay", Project: project}
}
