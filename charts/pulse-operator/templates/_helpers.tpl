{{- define "pulse-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The name of all objects: the release name, followed by the chart's name unless the release name contains it. */ -}}
{{- define "pulse-operator.fullname" -}}
{{- $name := include "pulse-operator.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "pulse-operator.selector" -}}
app.kubernetes.io/name: {{ include "pulse-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "pulse-operator.labels" -}}
{{- $labels := include "pulse-operator.selector" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "pulse" -}}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $labels .Values.commonLabels) -}}
{{- end -}}

{{- define "pulse-operator.serviceAccountName" -}}
{{- default (ternary (include "pulse-operator.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- /* The digest of the image. That of the release only holds for its own tag. */ -}}
{{- define "pulse-operator.digest" -}}
{{- $released := ternary (index .Chart.Annotations "pulseboard.dev/image-digest") "" (eq .Values.image.tag "") -}}
{{- default $released .Values.image.digest -}}
{{- end -}}

{{- define "pulse-operator.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- $digest := include "pulse-operator.digest" . -}}
{{- $version := ternary (printf "@%s" $digest) (printf ":%s" (default .Chart.AppVersion $image.tag)) (ne $digest "") -}}
{{- list $registry $image.repository | compact | join "/" -}}{{- $version -}}
{{- end -}}

{{- /* All image pull Secrets, as a JSON list without duplicates. */ -}}
{{- define "pulse-operator.pullSecrets" -}}
{{- concat .Values.imagePullSecrets .Values.global.imagePullSecrets | uniq | toJson -}}
{{- end -}}

{{- /* `rendered` or `skipped` for an enabled object of the Prometheus operator. Takes a list: the root, the kind, and the
name of its value. */ -}}
{{- define "pulse-operator.monitoring" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $value := index . 2 -}}
{{- $settings := index $root.Values $value -}}
{{- if $settings.enabled -}}
{{- $known := $root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" $kind) -}}
{{- if or $known (eq $settings.renderMode "alwaysRender") -}}
rendered
{{- else if eq $settings.renderMode "failIfMissing" -}}
{{- fail (printf "%s.enabled: this cluster does not have the CRD %s (monitoring.coreos.com/v1). Install the Prometheus operator first, or set %s.renderMode to skipIfMissing" $value $kind $value) -}}
{{- else -}}
skipped
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The watched namespaces, as a JSON list without duplicates. Empty for all namespaces. */ -}}
{{- define "pulse-operator.watchedNamespaces" -}}
{{- $named := default (list .Release.Namespace) .Values.watch.namespaces -}}
{{- ternary list ($named | uniq | sortAlpha) (eq .Values.watch.scope "cluster") | toJson -}}
{{- end -}}
