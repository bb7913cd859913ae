package trees

import (
	"math"
	"strconv"
	"strings"
)

// transform turns an objective line ("multiclassova num_class:3 sigmoid:1") into the function that LightGBM's ConvertOutput applies to the raw sums.
// outputs is the number of trees per iteration. A nil function is the identity; why is not empty when the line is not known exactly.
func transform(line string, outputs int) (finish func([]float64), why string) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return nil, "empty objective"
	}
	name, rest := fields[0], fields[1:]
	options := map[string]string{}
	for _, f := range rest {
		k, v, _ := strings.Cut(f, ":")
		if _, twice := options[k]; twice {
			return nil, "option " + k + " given twice"
		}
		options[k] = v
	}
	// take removes a positive number from the options.
	take := func(key string) (float64, bool) {
		v, err := strconv.ParseFloat(options[key], 64)
		delete(options, key)
		return v, err == nil && v > 0 && !math.IsInf(v, 0)
	}
	single := true
	switch name {
	case "regression", "regression_l1", "fair", "quantile", "mape":
		if v, ok := options["sqrt"]; ok && v == "" {
			delete(options, "sqrt")
			finish = signedSquare
		}
	case "huber", "lambdarank", "rank_xendcg":
	case "poisson", "gamma", "tweedie":
		finish = exponential
	case "cross_entropy":
		finish = sigmoid(1)
	case "cross_entropy_lambda":
		finish = log1pExp
	case "binary":
		s, ok := take("sigmoid")
		if !ok {
			return nil, "sigmoid is missing or not a positive number"
		}
		finish = sigmoid(s)
	case "multiclass", "multiclassova":
		single = false
		if n, ok := take("num_class"); !ok || n != float64(outputs) {
			return nil, "num_class is not the number of trees in an iteration"
		}
		finish = softmax
		if name == "multiclassova" {
			s, ok := take("sigmoid")
			if !ok {
				return nil, "sigmoid is missing or not a positive number"
			}
			finish = sigmoid(s)
		}
	default:
		return nil, "unknown objective " + strconv.Quote(name)
	}
	if single && outputs != 1 {
		return nil, "objective " + name + " with more than one tree in an iteration"
	}
	for k := range options {
		return nil, "unknown option " + strconv.Quote(k) + " of objective " + name
	}
	return finish, ""
}

func signedSquare(out []float64) {
	for i, v := range out {
		out[i] = math.Copysign(v*v, v)
	}
}

func exponential(out []float64) {
	for i, v := range out {
		out[i] = math.Exp(v)
	}
}

func log1pExp(out []float64) {
	for i, v := range out {
		out[i] = math.Log1p(math.Exp(v))
	}
}

func sigmoid(scale float64) func([]float64) {
	return func(out []float64) {
		for i, v := range out {
			out[i] = 1 / (1 + math.Exp(-scale*v))
		}
	}
}

func softmax(out []float64) {
	top := out[0]
	for _, v := range out[1:] {
		top = max(top, v)
	}
	sum := 0.0
	for i, v := range out {
		out[i] = math.Exp(v - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
}
