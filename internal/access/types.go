// Package access keeps projects, people, tokens and roles, and turns credentials into actors.
// It fills the store's Authorizer, so every change and every route is decided from the same roles.
package access

import (
	"time"

	"falaj/internal/kernel/policy"
)

// Project is the tenant: residency, owners and keys hang on it.
type Project struct {
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Regions     []string  `json:"regions"` // allowed regions; empty: the installation's
	Created     time.Time `json:"created"`
}

// User is a person who signs in on this installation.
type User struct {
	Name     string    `json:"name"`
	FullName string    `json:"full_name"`
	Groups   []string  `json:"groups"`
	Disabled bool      `json:"disabled"`
	Created  time.Time `json:"created"`
}

// Token describes an API token; the secret itself is shown once, at creation.
type Token struct {
	ID        string    `json:"id"`
	Principal string    `json:"principal"` // user:NAME, service:NAME or run:ID
	Name      string    `json:"name"`
	Project   string    `json:"project,omitempty"` // only this project
	Role      string    `json:"role,omitempty"`    // at most this role
	Run       string    `json:"run,omitempty"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Revoked   time.Time `json:"revoked,omitzero"`
}

// Binding gives a principal a role in a project ("*": every project and the installation).
type Binding struct {
	Project   string      `json:"project"`
	Role      policy.Role `json:"role"`
	Principal string      `json:"principal"`
}

// TokenRequest asks for a token. Principal defaults to the caller.
type TokenRequest struct {
	Principal string
	Name      string
	Project   string
	Role      policy.Role
	TTL       time.Duration // at most 90 days; 0 means 30
}

// Limits of tokens, sessions and links.
const (
	MaxTokenTTL     = 90 * 24 * time.Hour
	DefaultTokenTTL = 30 * 24 * time.Hour
	SessionTTL      = 12 * time.Hour
	SetupTTL        = 24 * time.Hour
	// cacheTTL bounds how long a revoked credential or role may still work on another replica; on this one it is at once.
	cacheTTL = time.Second
)
