{{- define "pulse-ingest.name" -}}
{{- default .Release.Name .Values.nameOverride -}}
{{- end -}}

{{- define "pulse-ingest.labels" -}}
{{- $labels := dict "app.kubernetes.io/name" "pulse-ingest" "app.kubernetes.io/instance" .Release.Name -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "pulse" -}}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $labels .Values.commonLabels) -}}
{{- end -}}

{{- /* Selects the pods that the operator creates: API, workers, scheduler, console and migrations. */ -}}
{{- define "pulse-ingest.selector" -}}
app.kubernetes.io/name: pulse
app.kubernetes.io/instance: {{ include "pulse-ingest.name" . | quote }}
{{- end -}}

{{- define "pulse-ingest.apiSelector" -}}
{{ include "pulse-ingest.selector" . }}
app.kubernetes.io/component: api
{{- end -}}

{{- define "pulse-ingest.databaseSecret" -}}
{{- default (printf "%s-database" (include "pulse-ingest.name" .)) .Values.database.urlSecretRef.name -}}
{{- end -}}

{{- define "pulse-ingest.redisSecret" -}}
{{- default (printf "%s-redis" (include "pulse-ingest.name" .)) .Values.redis.urlSecretRef.name -}}
{{- end -}}

{{- define "pulse-ingest.authSecret" -}}
{{- default (printf "%s-auth" (include "pulse-ingest.name" .)) .Values.auth.jwtSecretRef.name -}}
{{- end -}}

{{- /* Merges the second map into the first, at every depth. Unlike mergeOverwrite, it also copies empty, false and zero values. */ -}}
{{- define "pulse-ingest.merge" -}}
{{- $into := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $into $key)) -}}
{{- include "pulse-ingest.merge" (list (get $into $key) $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The spec of the PulseIngest. */ -}}
{{- define "pulse-ingest.spec" -}}
{{- $values := deepCopy .Values -}}
{{- $image := $values.image -}}
{{- $registry := default $image.registry $values.global.imageRegistry -}}
{{- $ofImage := dict "repository" (list $registry $image.repository | compact | join "/") "pullPolicy" $image.pullPolicy -}}
{{- if not $image.digest -}}
{{- $_ := set $ofImage "tag" (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- /* The digest of the release only holds for its own tag. */ -}}
{{- $released := ternary (index .Chart.Annotations "pulseboard.dev/image-digest") "" (eq $image.tag "") -}}
{{- with default $released $image.digest -}}
{{- $_ := set $ofImage "digest" . -}}
{{- end -}}
{{- with concat $values.imagePullSecrets $values.global.imagePullSecrets | uniq -}}
{{- $_ := set $ofImage "pullSecrets" . -}}
{{- end -}}
{{- $_ := set $values.database.urlSecretRef "name" (include "pulse-ingest.databaseSecret" .) -}}
{{- $_ := set $values.redis.urlSecretRef "name" (include "pulse-ingest.redisSecret" .) -}}
{{- if or $values.auth.publicKeySecretRef $values.auth.jwks -}}
{{- $_ := unset $values.auth "jwtSecretRef" -}}
{{- else -}}
{{- $_ := set $values.auth.jwtSecretRef "name" (include "pulse-ingest.authSecret" .) -}}
{{- end -}}
{{- $spec := dict "image" $ofImage "database" $values.database "redis" $values.redis "auth" $values.auth -}}
{{- range $key := list "api" "workers" "scheduler" "console" "tasks" "retention" "migrations" "requireTls" "commonLabels" "commonAnnotations" "paused" "stopped" -}}
{{- with get $values $key -}}
{{- $_ := set $spec $key . -}}
{{- end -}}
{{- end -}}
{{- include "pulse-ingest.merge" (list $spec $values.spec) -}}
{{- /* A scaler sets workers.replicas: applying it too would reset it, or be refused as a conflict. */ -}}
{{- if dig "workers" "autoscaling" dict $spec -}}
{{- $_ := unset $spec.workers "replicas" -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}
