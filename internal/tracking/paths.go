package tracking

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxPath = 1024

// SafePath checks a path inside an artifact root and returns it without a trailing slash. Refused are: absolute paths,
// "..", "." and empty segments, backslashes, drive letters, "#", control characters, file: and other URIs, and anything that
// turns into one of these when percent-decoded, however often.
func SafePath(p string) (string, error) {
	bad := invalid("Invalid path").At("path")
	p = strings.TrimSuffix(p, "/")
	if p == "" || len(p) > maxPath || !utf8.ValidString(p) {
		return "", bad
	}
	for try := p; ; {
		if !cleanPath(try) {
			return "", bad
		}
		next, err := url.PathUnescape(try)
		if err != nil || next == try {
			return p, nil
		}
		try = next
	}
}

func cleanPath(p string) bool {
	if strings.ContainsAny(p, "\\#") || !utf8.ValidString(p) || strings.IndexFunc(p, unicode.IsControl) >= 0 {
		return false
	}
	for i, seg := range strings.Split(p, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
		// "file:x", and "c:" or "s3:" in front of the rest: not names but drives and URIs.
		if i == 0 && (strings.HasSuffix(seg, ":") || len(seg) >= 5 && strings.EqualFold(seg[:5], "file:")) {
			return false
		}
	}
	return true
}

// ProxyPath gives the path of an mlflow-artifacts: URI, such as "3/RUN/artifacts/model". "" is the proxy's root.
func ProxyPath(uri string) (string, error) {
	rest, ok := strings.CutPrefix(uri, "mlflow-artifacts:")
	if !ok {
		return "", invalid("'%s' is not kept by this server.", uri)
	}
	if host, ok := strings.CutPrefix(rest, "//"); ok {
		_, rest, _ = strings.Cut(host, "/")
	}
	if rest = strings.TrimLeft(rest, "/"); rest == "" {
		return "", nil
	}
	return SafePath(rest)
}

// place is where a proxied path lies: an artifact root ("runs/ID", "models/ID", "" for neither) and the path in it.
type place struct{ root, path string }

// locate splits a checked path of the proxy at the root of a run (…/RUN/artifacts) or a logged model (…/models/ID/artifacts).
func locate(p string) place {
	segs := strings.Split(p, "/")
	for i := 0; i+1 < len(segs); i++ {
		if segs[i+1] != "artifacts" {
			continue
		}
		rest := strings.Join(segs[i+2:], "/")
		switch id := segs[i]; {
		case hexID(id):
			return place{"runs/" + id, rest}
		case strings.HasPrefix(id, "m-") && hexID(id[2:]):
			return place{"models/" + id, rest}
		}
	}
	return place{"", p}
}
