package serving

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/goccy/go-yaml"

	"falaj/internal/kernel/fault"
)

// maxMLmodel bounds the MLmodel file, which holds names and a signature.
const maxMLmodel = 4 << 20

// FromMLmodel fills Flavor, Model and Features of a release from the MLmodel file that MLflow wrote into it; Files, Open and the rest are the caller's.
//
// A LightGBM Booster in LightGBM's own text becomes the flavor "lightgbm", because its pyfunc answers what the Booster answers.
// Everything else that has a Python function becomes "pyfunc", also scikit-learn's LGBMClassifier, whose pyfunc answers labels.
func FromMLmodel(ctx context.Context, r Release) (Release, error) {
	bad := func(err error, why string) (Release, error) {
		return r, fault.Wrap(err, fault.Refused, fmt.Sprintf("The MLmodel file of release %s %s.", short(r.Digest), why), "Log the model with mlflow and register it again.")
	}
	in, err := r.OpenChecked(ctx, "MLmodel")
	if err != nil {
		return r, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxMLmodel+1))
	if err != nil {
		return r, err
	}
	if len(text) > maxMLmodel {
		return bad(fmt.Errorf("%d bytes", len(text)), "is too large")
	}
	var m struct {
		Flavors struct {
			Function *struct {
				Loader string `yaml:"loader_module"`
			} `yaml:"python_function"`
			LightGBM *struct {
				Data  string `yaml:"data"`
				Class string `yaml:"model_class"`
			} `yaml:"lightgbm"`
		} `yaml:"flavors"`
		Signature *struct {
			Inputs string `yaml:"inputs"`
		} `yaml:"signature"`
	}
	if err := yaml.Unmarshal(text, &m); err != nil {
		return bad(err, "is not YAML as MLflow writes it")
	}
	if m.Signature != nil && m.Signature.Inputs != "" {
		var columns []struct {
			Name string `json:"name"`
		}
		if err := json.Unmarshal([]byte(m.Signature.Inputs), &columns); err != nil {
			return bad(err, "has a signature that is not JSON")
		}
		r.Features = nil
		for _, c := range columns {
			if c.Name == "" { // a tensor signature names no columns
				r.Features = nil
				break
			}
			r.Features = append(r.Features, c.Name)
		}
	}
	switch l := m.Flavors.LightGBM; {
	case l != nil && l.Class == "lightgbm.basic.Booster" && strings.HasSuffix(l.Data, ".lgb"):
		r.Flavor, r.Model = "lightgbm", path.Clean(l.Data)
	case m.Flavors.Function != nil:
		r.Flavor, r.Model = "pyfunc", ""
	default:
		return bad(fmt.Errorf("no python_function"), "names no flavor that this server knows")
	}
	return r, nil
}
